"""The general action of one real scalar field: every operator that the renormalization group is likely to ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

from lattices.action import Action
from lattices.fields import FieldSpace, Transformation
from lattices.invariance import PointGroup, SignFlip, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.theories.checks import check_arguments, check_diagonal, check_stable
from lattices.theories.neighbours import axial, diagonal, neighbour_sum, square_differences

DENSITIES: dict[str, Callable[[Tensor], Tensor]] = {  # coupling -> density of its operator, one value per site
    "kinetic": lambda x: square_differences(x, axial(x.ndim - 1)),
    "mass_squared": lambda x: x**2,
    "quartic": lambda x: x**4,
    "sextic": lambda x: x**6,
    "diagonal": lambda x: square_differences(x, diagonal(x.ndim - 1)),
    "source": lambda x: x,
}


def operator(coupling: str, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
    """The operator ∂S/∂J(x) = Σ_s density(x)(s) of the coupling J named `coupling`."""
    return DENSITIES[coupling](x).flatten(1).sum(1)


def self_consistent_gap(stiffness: Tensor, mass_squared: float, quartic: float, sextic: float = 0.0) -> float:
    """The solution M² > -min ω of M² = m² + 6 λ G + 45 g G² with G = V⁻¹ Σ_k 1 / 2(M² + ω(k)).

    ½⟨V''⟩ in the Gaussian itself for V = m² φ² + λ φ⁴ + g φ⁶; a solution exists for every stable potential.

    Args:
        stiffness: ω(k), float64, any shape.
    """
    floor = -float(stiffness.min())

    def excess(width: float) -> float:
        variance = float((0.5 / (floor + width + stiffness)).mean())
        return floor + width - mass_squared - 6 * quartic * variance - 45 * sextic * variance**2

    low = high = 1.0
    while excess(low) > 0:
        low /= 2
    while excess(high) < 0:
        high *= 2
    return floor + brentq(excess, low, high, xtol=1e-14)


@dataclass(frozen=True)
class Scalar(Action):
    """A real scalar field with nearest and next-nearest neighbours, powers up to φ⁶ and a source.

        S(φ) = Σ_x [ κ Σ_μ (φ_{x+μ} - φ_x)² + κ' Σ_{μ<ν,±} (φ_{x+μ±ν} - φ_x)² + m² φ² + λ φ⁴ + g φ⁶ + h φ ]

    `Phi4` is κ = 1, κ' = g = h = 0 and faster; this is what `Phi4Family.at` returns. Cost V.

    Args:
        extents: sites along each axis, e.g. 8 8.
        kinetic: κ, the coupling of nearest neighbours.
        mass_squared: m² in lattice units, of either sign if λ or g is positive.
        quartic: λ, of either sign if g is positive.
        sextic: g ≥ 0.
        diagonal: κ', the coupling of next-nearest neighbours; needs two dimensions.
        source: h, a uniform field that breaks φ → -φ (h > 0 favours φ < 0).

    Symmetries: translations, point group, and φ → -φ if h = 0.
    """

    extents: tuple[int, ...]
    kinetic: float = 1.0
    mass_squared: float = 1.0
    quartic: float = 0.0
    sextic: float = 0.0
    diagonal: float = 0.0
    source: float = 0.0

    def __post_init__(self) -> None:
        check_arguments(self)
        check_diagonal(self.extents, self.diagonal)
        powers = ("sextic", self.sextic), ("quartic", self.quartic)
        smallest = self.mass_squared + float(self._stiffness().min()) if not (self.sextic or self.quartic) else 0.0
        check_stable(*powers, ("mass_squared", smallest))

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents))

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Translations(), PointGroup(), SignFlip())[: 2 if self.source else 3]

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
        couplings = ((name, getattr(self, name)) for name in DENSITIES)
        return sum((J * operator(name, x) for name, J in couplings if J), x.new_zeros(len(x)))

    def force(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, *extents)
        square = x * x
        powers = 2 * self.mass_squared + square * (4 * self.quartic + 6 * self.sextic * square)
        return -x * powers - self.source - 2 * self._stiff(x)

    def gaussian_spectrum(self) -> Tensor:  # -> extents
        """C(k) = 1 / 2(M² + ω(k)) with the gap M² = m² + 6 λ G + 45 g G², G = V⁻¹ Σ_k C(k); ω: the bond terms.

        The best Gaussian of zero mean: it exists in the broken phase (m² < 0) too, and leaves out the source.
        """
        stiffness = self._stiffness()
        return 0.5 / (stiffness + self_consistent_gap(stiffness, self.mass_squared, self.quartic, self.sextic))

    @classmethod
    def examples(cls) -> Iterator[Scalar]:
        """φ⁴ with more neighbours, φ⁶ with a tricritical shape, and a source."""
        yield cls(extents=(4, 4), mass_squared=-1.0, quartic=0.5, diagonal=0.2)
        yield cls(extents=(6,), kinetic=0.7, mass_squared=1.0, quartic=-0.4, sextic=0.3)
        yield cls(extents=(2, 3, 4), mass_squared=0.3, quartic=0.2, source=0.1)

    def _stiffness(self) -> Tensor:  # -> extents
        """ω(k), the eigenvalues of the bond terms in FFT order."""
        impulse = torch.zeros(1, *self.extents, dtype=torch.float64)
        impulse.view(-1)[0] = 1
        return torch.fft.fftn(self._stiff(impulse)[0]).real

    def _stiff(self, x: Tensor) -> Tensor:
        """Half the gradient of the bond terms."""
        d = len(self.extents)
        total = self.kinetic * (2 * d * x - neighbour_sum(x, axial(d)))
        if self.diagonal:
            total = total + self.diagonal * (2 * d * (d - 1) * x - neighbour_sum(x, diagonal(d)))
        return total
