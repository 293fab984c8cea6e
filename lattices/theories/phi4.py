"""φ⁴ theory in any dimension, its four spellings, and the family that the renormalization group moves in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot

from lattices.action import Action, ActionFamily, named_couplings
from lattices.fields import FieldSpace, Transformation
from lattices.invariance import PointGroup, SignFlip, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.theories.checks import check_arguments, check_names, check_stable
from lattices.theories.neighbours import axial, forward_sum, neighbour_sum
from lattices.theories.scalar import DENSITIES, Scalar, operator, self_consistent_gap


@dataclass(frozen=True)
class Phi4(Action):
    """φ⁴ theory, form A: no factors ½.

        S(φ) = Σ_x [ Σ_μ (φ_{x+μ} - φ_x)² + m² φ_x² + λ φ_x⁴ ]

    The other spellings differ by a rescaling of the field, φ = s χ, which shifts log Z by a constant
    (`field_scale`, `log_jacobian`); `from_form_b`, `from_form_c` and `from_form_d` convert their couplings. Cost V.

    Args:
        extents: sites along each axis, e.g. 8 8.
        mass_squared: m² in lattice units, of either sign if λ > 0.
        quartic: λ ≥ 0.

    Symmetries: translations, point group, φ → -φ.
    References: Albergo, Kanwar, Shanahan 2019, arXiv:1904.12072.
    """

    extents: tuple[int, ...]
    mass_squared: float
    quartic: float

    def __post_init__(self) -> None:
        check_arguments(self)
        check_stable(("quartic", self.quartic), ("mass_squared", self.mass_squared))

    @classmethod
    def from_form_b(cls, extents: tuple[int, ...], mass_squared: float, quartic: float) -> Phi4:
        """S = Σ_x [ ½ Σ_μ (χ_{x+μ} - χ_x)² + ½ m² χ² + λ χ⁴ ], the textbook form:  m²_A = m²,  λ_A = 4 λ."""
        return cls(extents, mass_squared, 4 * quartic)

    @classmethod
    def from_form_c(cls, extents: tuple[int, ...], mass_squared: float, quartic: float) -> Phi4:
        """S = Σ_x [ ½ (m² + 2d) χ² + λ/24 χ⁴ - Σ_μ χ_x χ_{x+μ} ]:  m²_A = m²,  λ_A = λ / 6."""
        return cls(extents, mass_squared, quartic / 6)

    @classmethod
    def from_form_d(cls, extents: tuple[int, ...], kappa: float, quartic: float) -> Phi4:
        """S = Σ_x [ (1 - 2λ) χ² + λ χ⁴ - 2κ Σ_μ χ_x χ_{x+μ} ]:  m²_A = (1 - 2λ)/κ - 2d,  λ_A = λ / κ²."""
        field_scale("D", kappa)
        return cls(extents, (1 - 2 * quartic) / kappa - 2 * len(extents), quartic / kappa**2)

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents))

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return Translations(), PointGroup(), SignFlip()

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
        d = len(self.extents)
        phi, hopping = x.flatten(1), forward_sum(x, axial(d)).flatten(1)
        square = phi * phi
        quadratic = (self.mass_squared + 2 * d) * square.sum(1) - 2 * vecdot(phi, hopping)
        return quadratic + self.quartic * vecdot(square, square)

    def force(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, *extents)
        d = len(self.extents)
        return 2 * neighbour_sum(x, axial(d)) - x * (2 * self.mass_squared + 4 * d + 4 * self.quartic * x * x)

    def gaussian_spectrum(self) -> Tensor:  # -> extents
        """1 / 2(M² + k̂²), with M² = m² + 6 λ ⟨φ²⟩ in that Gaussian itself: solvable for m² < 0 too."""
        stiffness = Lattice(self.extents).laplacian_spectrum()
        return 0.5 / (stiffness + self_consistent_gap(stiffness, self.mass_squared, self.quartic))

    @classmethod
    def examples(cls) -> Iterator[Phi4]:
        """On both sides of the transition, in one, two and three dimensions."""
        yield cls(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
        yield cls(extents=(6,), mass_squared=-1.0, quartic=0.5)
        yield cls(extents=(2, 3, 4), mass_squared=0.3, quartic=0.2)


def field_scale(form: str, kappa: float | None = None) -> float:
    """The s of φ = s χ between form A (φ) and another form (χ): 1 for A, 1/√2 for B and C, √κ for D.

    Args:
        form: "A", "B", "C" or "D".
        kappa: κ > 0 of form D, not used by the others.
    """
    if form == "D":
        if kappa is None or not (math.isfinite(kappa) and kappa > 0):
            raise ValueError(f"expected kappa > 0 for form D, got {kappa}: give the field staggered signs instead")
        return math.sqrt(kappa)
    if form not in ("A", "B", "C"):
        raise ValueError(f"expected one of the forms A, B, C, D, got {form!r}: choose one of them")
    return 1.0 if form == "A" else math.sqrt(0.5)


def log_jacobian(extents: tuple[int, ...], scale: float) -> float:
    """V log s, the log-det of χ ↦ φ = s χ:  log Z(χ) = log Z(φ) - V log s,  log q(χ) = log q(φ) + V log s."""
    return Lattice(extents).volume * math.log(scale)


@dataclass(frozen=True)
class Phi4Family(ActionFamily):
    """All scalar actions made of the chosen operators: S(φ; J) = Σ_a J_a O_a(φ), names and operators of `Scalar`.

    Args:
        extents: sites along each axis, e.g. 8 8.
        names: which couplings vary, in this order; the others are zero. Out of "kinetic" Σ (φ_{x+μ} - φ_x)²,
            "mass_squared" Σ φ², "quartic" Σ φ⁴, "sextic" Σ φ⁶, "diagonal" Σ (φ_{x+μ±ν} - φ_x)², "source" Σ φ.
    """

    extents: tuple[int, ...]
    names: tuple[str, ...] = ("kinetic", "mass_squared", "quartic")

    def __post_init__(self) -> None:
        check_names(self, DENSITIES)

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents))

    def operators(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, n)
        return torch.stack([operator(name, x) for name in self.names], 1)

    def at(self, couplings: Tensor) -> Scalar:  # (n,) -> the action with these couplings
        """The action with these couplings; ValueError if it is not stable."""
        return Scalar(self.extents, **{**dict.fromkeys(DENSITIES, 0.0), **named_couplings(self.names, couplings)})

    @classmethod
    def examples(cls) -> Iterator[Phi4Family]:
        """Plain φ⁴, and every operator there is."""
        yield cls(extents=(4, 4))
        yield cls(extents=(2, 3, 4), names=tuple(DENSITIES))
