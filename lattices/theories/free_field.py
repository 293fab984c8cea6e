"""The free scalar field: Gaussian, solved exactly in Fourier space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.linalg import vecdot

from lattices.action import Action
from lattices.fields import FieldSpace, Transformation
from lattices.invariance import PointGroup, SignFlip, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.theories.checks import check_arguments, check_stable
from lattices.theories.neighbours import axial, forward_sum, neighbour_sum


@dataclass(frozen=True)
class FreeField(Action):
    """The free scalar field on a torus.

        S(φ) = Σ_x [ Σ_μ (φ_{x+μ} - φ_x)² + m² φ_x² ] = Σ_k (m² + k̂²) |φ̂_k|²    (unitary φ̂)

    No factor ½: it is `Phi4` at λ = 0, with ⟨|φ̂_k|²⟩ = 1 / 2(m² + k̂²) and log Z = ½ Σ_k log(π / (m² + k̂²)).
    Cost V.

    Args:
        extents: sites along each axis, e.g. 8 8.
        mass_squared: m² > 0 in lattice units.

    Symmetries: translations, point group, φ → -φ.
    """

    extents: tuple[int, ...]
    mass_squared: float

    def __post_init__(self) -> None:
        check_arguments(self)
        check_stable(("mass_squared", self.mass_squared))

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
        return (self.mass_squared + 2 * d) * vecdot(phi, phi) - 2 * vecdot(phi, hopping)

    def force(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, *extents)
        d = len(self.extents)
        return 2 * neighbour_sum(x, axial(d)) - 2 * (self.mass_squared + 2 * d) * x

    def gaussian_spectrum(self) -> Tensor:  # -> extents
        """1 / 2(m² + k̂²): exact."""
        return 0.5 / (self.mass_squared + Lattice(self.extents).laplacian_spectrum())

    @classmethod
    def examples(cls) -> Iterator[FreeField]:
        """In one, two and three dimensions."""
        yield cls(extents=(6,), mass_squared=0.3)
        yield cls(extents=(4, 4), mass_squared=1.0)
        yield cls(extents=(2, 3, 4), mass_squared=0.5)
