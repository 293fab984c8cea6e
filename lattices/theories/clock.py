"""The clock model: planar spins that point in one of q directions, for local and cluster updates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lattices.action import Action
from lattices.fields import FieldSpace, Target, Transformation
from lattices.invariance import PointGroup, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.spins import ClockRotations, Shift
from lattices.theories.checks import check_arguments
from lattices.theories.xy import XY


@dataclass(frozen=True)
class ClockSpins(Target):
    """The q angles 2πk/q in [-π, π), stored as floating point numbers, with counting measure.

    Nothing moves along them but whole steps 2π/q.

    Args:
        q: the number of states, at least 2.
    """

    q: int

    def __post_init__(self) -> None:
        if type(self.q) is not int or self.q < 2:
            raise ValueError(f"expected a whole number q >= 2 of states, got {self.q!r}: q = 2 is the Ising model")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return ()

    def angle(self, k: Tensor) -> Tensor:  # whole numbers, of a floating point type -> the same shape
        """2πk/q, brought to [-π, π)."""
        half = self.q // 2
        return (torch.remainder(k + half, self.q) - half) * (2 * math.pi / self.q)

    def state(self, x: Tensor) -> Tensor:
        """The whole number nearest to qx/2π, as a floating point number."""
        return (x * (self.q / (2 * math.pi))).round()

    def random(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Independent fair dice of q faces."""
        return self.angle(torch.randint(self.q, shape, generator=generator, device=generator.device).to(dtype))

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        steps = self.state(v)
        if ((v - steps * (2 * math.pi / self.q)).abs() > 1e-5).any():
            raise ValueError("expected steps of 2π/q on the discrete angles, got a velocity: use a local update")
        return self.angle(self.state(x) + steps)

    def distance_from(self, x: Tensor) -> Tensor:
        beyond = (x.abs() - math.pi).clamp(min=0)
        return torch.maximum((x - self.state(x) * (2 * math.pi / self.q)).abs(), beyond)


@dataclass(frozen=True)
class Clock(Action):
    """The q-state clock model on a torus, in units of kT: the XY model restricted to q directions.

        S(θ) = -β Σ_x Σ_μ cos(θ_x - θ_{x+μ}),    θ_x ∈ 2πℤ/q,    Z = Σ_θ e^{-S(θ)}

    A sum, not an integral: flows use `XY` with a crystal field, the same symmetry in continuous angles. q = 2 is the
    Ising model at coupling β, q = 3 Potts' at 3β/2, q = 4 two Ising models at β/2. Directions of length 2 count both
    bonds. Cost V.

    Args:
        extents: sites along each axis, e.g. 8 8.
        q: the number of states, at least 2.
        beta: β, of either sign.

    Symmetries: translations, point group, the dihedral group of q directions.
    References: José, Kadanoff, Kirkpatrick, Nelson 1977, Phys. Rev. B 16, 1217.
    """

    extents: tuple[int, ...]
    q: int
    beta: float

    def __post_init__(self) -> None:
        check_arguments(self)
        ClockSpins(self.q)

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents), ClockSpins(self.q))

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return Translations(), PointGroup(), ClockRotations(self.q)

    @property
    def broken(self) -> Transformation:
        """One step of the spin at the origin alone."""
        return Shift((2 * math.pi / self.q, *(0.0,) * (self.field.lattice.volume - 1)))

    def energy(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
        return XY(self.extents, self.beta).energy(x)

    def force(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, *extents)
        """-∂S/∂θ_x of real angles: what the molecular field says about the next step."""
        return XY(self.extents, self.beta).force(x)

    @classmethod
    def examples(cls) -> Iterator[Clock]:
        """Six states between the two transitions, three antiferromagnetic ones, Ising's two."""
        yield cls(extents=(4, 4), q=6, beta=1.2)
        yield cls(extents=(5,), q=3, beta=-0.6)
        yield cls(extents=(2, 3, 4), q=2, beta=0.2)
