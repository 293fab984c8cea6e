"""The family of n-component spin models: where the renormalization group of XY and O(n) moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lattices.action import Action, ActionFamily, named_couplings
from lattices.fields import FieldSpace
from lattices.spin_observables import spin_components
from lattices.theories.bonds import BONDS
from lattices.theories.checks import check_names
from lattices.theories.on import ON
from lattices.theories.spin_model import SpinModel, bond_operator, spin_space
from lattices.theories.xy import XY


@dataclass(frozen=True)
class SpinFamily(ActionFamily):
    """All couplings of n-component spins to their neighbours: S(s; J) = -Σ_a J_a Σ_bonds(a) s·s'.

    Angles for n = 2 (`XY`, measure dθ), unit vectors for n ≥ 3 (`ON`, the area). Couplings of either sign. Cost V n.

    Args:
        extents: sites along each axis, e.g. 8 8.
        n: components of a spin, at least 2.
        names: which couplings vary, in this order; the others are zero. Out of "nearest", "diagonal".
    """

    extents: tuple[int, ...]
    n: int = 2
    names: tuple[str, ...] = ("nearest", "diagonal")

    def __post_init__(self) -> None:
        check_names(self, BONDS)
        spin_space(self.extents, self.n)

    @property
    def field(self) -> FieldSpace:
        return spin_space(self.extents, self.n)

    def operators(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, n_couplings)
        s = spin_components(self.field, x)
        return torch.stack([bond_operator(name, s) for name in self.names], 1)

    def at(self, couplings: Tensor) -> Action:  # (n_couplings,) -> the action with these couplings
        """`XY` or `ON` where nearest neighbours alone couple, a `SpinModel` elsewhere."""
        values = {"nearest": 0.0, "diagonal": 0.0, **named_couplings(self.names, couplings)}
        if values["diagonal"]:
            return SpinModel(self.extents, self.n, **values)
        return XY(self.extents, values["nearest"]) if self.n == 2 else ON(self.extents, self.n, values["nearest"])

    @classmethod
    def examples(cls) -> Iterator[SpinFamily]:
        """XY and O(3) with their diagonals, and plain O(4) in three dimensions."""
        yield cls(extents=(4, 4))
        yield cls(extents=(3, 4), n=3)
        yield cls(extents=(2, 3, 2), n=4, names=("nearest",))
