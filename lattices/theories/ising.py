"""The Ising model in its own variables: spins ±1, for local and cluster updates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lattices.action import Action
from lattices.fields import FieldSpace, Target, Transformation
from lattices.invariance import PointGroup, SignFlip, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.theories.checks import check_arguments
from lattices.theories.neighbours import axial, forward_sum, neighbour_sum


@dataclass(frozen=True)
class Spins(Target):
    """The two points {-1, +1}, stored as floating point numbers, with counting measure. Nothing moves along them."""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return ()

    def random(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Independent fair coins."""
        coins = torch.randint(2, shape, generator=generator, device=generator.device)
        return (2 * coins - 1).to(dtype)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        if v.any():
            raise ValueError("expected v = 0 on the discrete spins, got a velocity: use a local or cluster update")
        return x

    def distance_from(self, x: Tensor) -> Tensor:
        return (x.abs() - 1).abs()


@dataclass(frozen=True)
class Ising(Action):
    """The Ising model on a torus, in units of kT.

        S(s) = -K Σ_x Σ_μ s_x s_{x+μ},    s_x = ±1,    Z = Σ_s e^{-S(s)}

    A sum over spins, not an integral: flows use `IsingDual`, the same model in continuous variables. Cost V.
    Directions of length 2 count both bonds.

    Args:
        extents: sites along each axis, e.g. 8 8.
        coupling: K, of either sign; the square lattice is critical at ½ log(1 + √2) = 0.440687.

    Symmetries: translations, point group, s → -s.
    """

    extents: tuple[int, ...]
    coupling: float

    def __post_init__(self) -> None:
        check_arguments(self)

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents), Spins())

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return Translations(), PointGroup(), SignFlip()

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
        return -self.coupling * (x * forward_sum(x, axial(len(self.extents)))).flatten(1).sum(1)

    def force(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, *extents)
        """The local field h_x = K Σ_μ s_{x+μ} + s_{x-μ}: flipping s_x alone changes S by 2 s_x h_x."""
        return self.coupling * neighbour_sum(x, axial(len(self.extents)))

    @classmethod
    def examples(cls) -> Iterator[Ising]:
        """At the critical coupling of the square lattice, and antiferromagnetic in three dimensions."""
        yield cls(extents=(4, 4), coupling=0.440687)
        yield cls(extents=(6,), coupling=0.7)
        yield cls(extents=(2, 3, 4), coupling=-0.2)
