"""The general action of n-component spins: the couplings that the renormalization group is likely to ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Sphere, Transformation
from lattices.invariance import PointGroup, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.spin_observables import spin_components
from lattices.spins import GlobalRotations, turned
from lattices.theories.bonds import BONDS
from lattices.theories.checks import check_arguments, check_diagonal
from lattices.theories.neighbours import forward_sum, neighbour_sum


def spin_space(extents: tuple[int, ...], n: int) -> FieldSpace:
    """Where spins of n components live: angles on circles for n = 2, unit vectors on spheres for n ≥ 3."""
    if type(n) is not int or n < 2:
        raise ValueError(f"expected a whole number n >= 2 of components, got {n!r}: n = 1 is the Ising model")
    return FieldSpace(Lattice(extents), Circle() if n == 2 else Sphere(n - 1))


def bond_operator(name: str, s: Tensor) -> Tensor:  # (batch, n, *extents) -> (batch,)
    """-Σ s·s' over the bonds of this name, each counted once."""
    return -(s * forward_sum(s, BONDS[name](s.ndim - 2))).flatten(1).sum(1)


@dataclass(frozen=True)
class SpinModel(Action):
    """Spins of n components with nearest and next-nearest neighbours, the J₁–J₂ model, in units of kT.

        S(s) = -Σ_x [ J Σ_μ s_x·s_{x+μ} + J' Σ_{μ<ν,±} s_x·s_{x+μ±ν} ],    |s_x| = 1

    Angles for n = 2, unit vectors for n ≥ 3, with measure dθ or the area. `XY` and `ON` are J' = 0 and faster; this is
    what `SpinFamily.at` returns otherwise. Directions of length 2 count both bonds. Cost V n d².

    Args:
        extents: sites along each axis, e.g. 8 8.
        n: components of a spin, at least 2.
        nearest: J, of either sign.
        diagonal: J' of the diagonals of the squares, of either sign; needs two dimensions.

    Symmetries: translations, point group, global O(n).
    """

    extents: tuple[int, ...]
    n: int
    nearest: float
    diagonal: float = 0.0

    def __post_init__(self) -> None:
        check_arguments(self)
        spin_space(self.extents, self.n)
        check_diagonal(self.extents, self.diagonal)

    @property
    def field(self) -> FieldSpace:
        return spin_space(self.extents, self.n)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return Translations(), PointGroup(), GlobalRotations()

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
        s = spin_components(self.field, x)
        return sum((J * bond_operator(name, s) for name, J in self._couplings()), x.new_zeros(len(x)))

    def force(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, *event)
        """The molecular field Σ_a J_a Σ s', along the sphere."""
        s = spin_components(self.field, x)
        bonds = ((J, BONDS[name](len(self.extents))) for name, J in self._couplings())
        molecular = sum((J * neighbour_sum(s, bond) for J, bond in bonds), torch.zeros_like(s)).movedim(1, -1)
        if self.n == 2:
            return (molecular * turned(s.movedim(1, -1))).sum(-1)
        return self.field.target.gradient(x, molecular)

    def _couplings(self) -> list[tuple[str, float]]:
        return [(name, getattr(self, name)) for name in BONDS if getattr(self, name)]

    @classmethod
    def examples(cls) -> Iterator[SpinModel]:
        """Angles and vectors, ferromagnetic and frustrated, in one, two and three dimensions."""
        yield cls(extents=(4, 4), n=2, nearest=0.8, diagonal=0.3)
        yield cls(extents=(5,), n=3, nearest=-0.7)
        yield cls(extents=(2, 3, 4), n=4, nearest=0.4, diagonal=-0.2)
