"""The XY model: planar spins as angles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Transformation
from lattices.invariance import PointGroup, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.spins import ClockRotations, GlobalRotations
from lattices.theories.checks import check_arguments
from lattices.theories.neighbours import axial, neighbour_sum


@dataclass(frozen=True)
class XY(Action):
    """Planar spins (cos θ, sin θ) on a torus, in units of kT, with an optional crystal field of q directions.

        S(θ) = -β Σ_x Σ_μ cos(θ_x - θ_{x+μ}) - h Σ_x cos(q θ_x)

    The reference measure is Π dθ: log Z is V log 2π at β = h = 0. In d = 2 vortices unbind at β ≈ 1.1199 (h = 0).
    Directions of length 2 count both bonds. Cost V.

    Args:
        extents: sites along each axis, e.g. 8 8.
        beta: β, of either sign.
        crystal: h, the strength of the crystal field.
        directions: q of the crystal field.

    Symmetries: translations, point group, global O(2); with h ≠ 0 the dihedral group of q directions.
    References: Kosterlitz and Thouless 1973, J. Phys. C 6, 1181; José et al. 1977, Phys. Rev. B 16, 1217.
    """

    extents: tuple[int, ...]
    beta: float
    crystal: float = 0.0
    directions: int = 4

    def __post_init__(self) -> None:
        check_arguments(self)
        if type(self.directions) is not int or self.directions < 1:
            raise ValueError(f"expected a whole number >= 1 of directions, got {self.directions!r}: 4 is a square")

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents), Circle())

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return Translations(), PointGroup(), ClockRotations(self.directions) if self.crystal else GlobalRotations()

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
        differences = (x - x.roll(-1, axis) for axis in self.field.lattice_axes)
        density = self.beta * sum((d.cos() for d in differences), torch.zeros_like(x))
        if self.crystal:
            density = density + self.crystal * (self.directions * x).cos()
        return -density.flatten(1).sum(1)

    def force(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, *extents)
        c, s = x.cos(), x.sin()
        bonds = axial(len(self.extents))
        force = self.beta * (c * neighbour_sum(s, bonds) - s * neighbour_sum(c, bonds))
        if self.crystal:
            force = force - self.crystal * self.directions * (self.directions * x).sin()
        return force

    @classmethod
    def examples(cls) -> Iterator[XY]:
        """In one, two and three dimensions, of both signs, with and without a crystal field."""
        yield cls(extents=(4, 4), beta=1.1)
        yield cls(extents=(5,), beta=0.7)
        yield cls(extents=(2, 3), beta=0.9, crystal=0.5, directions=3)
        yield cls(extents=(2, 3, 4), beta=-0.4)
