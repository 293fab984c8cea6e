"""The O(n) model: unit vectors in Rⁿ, the non-linear sigma model on a lattice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lattices.action import Action
from lattices.fields import FieldSpace, Sphere, Transformation
from lattices.invariance import PointGroup, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.spins import GlobalRotations
from lattices.theories.checks import check_arguments


@dataclass(frozen=True)
class ON(Action):
    """Unit vectors s in Rⁿ on a torus, in units of kT: Heisenberg's model for n = 3, XY as vectors for n = 2.

        S(s) = -β Σ_x Σ_μ s_x·s_{x+μ},    |s_x| = 1

    The reference measure is the area: log Z is V log |Sⁿ⁻¹| at β = 0. Asymptotically free in d = 2 for n ≥ 3.
    Directions of length 2 count both bonds. Cost V n.

    Args:
        extents: sites along each axis, e.g. 8 8.
        n: components of a spin, at least 2.
        beta: β, of either sign.

    Symmetries: translations, point group, global O(n).
    References: Stanley 1968, Phys. Rev. Lett. 20, 589; Polyakov 1975, Phys. Lett. B 59, 79.
    """

    extents: tuple[int, ...]
    n: int
    beta: float

    def __post_init__(self) -> None:
        check_arguments(self)
        if type(self.n) is not int or self.n < 2:
            raise ValueError(f"expected a whole number n >= 2 of components, got {self.n!r}: n = 1 is the Ising model")

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents), Sphere(self.n - 1))

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return Translations(), PointGroup(), GlobalRotations()

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, *extents, n) -> (batch,)
        return -self.beta * (x * self._neighbours(x, (-1,))).flatten(1).sum(1)

    def force(self, x: Tensor) -> Tensor:  # (batch, *extents, n) -> (batch, *extents, n)
        return self.beta * self.field.target.gradient(x, self._neighbours(x, (-1, 1)))

    def _neighbours(self, x: Tensor, steps: tuple[int, ...]) -> Tensor:  # -> (batch, *extents, n)
        moved = (x.roll(step, axis) for axis in self.field.lattice_axes for step in steps)
        return sum(moved, torch.zeros_like(x))

    @classmethod
    def examples(cls) -> Iterator[ON]:
        """n = 2, 3, 4 in one, two and three dimensions, of both signs."""
        yield cls(extents=(4, 4), n=3, beta=1.2)
        yield cls(extents=(5,), n=2, beta=0.7)
        yield cls(extents=(2, 3), n=4, beta=-0.5)
        yield cls(extents=(2, 2, 3), n=3, beta=0.4)
