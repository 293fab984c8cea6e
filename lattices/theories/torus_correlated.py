"""A density on a torus whose angles are correlated: a wave, invariant under the shifts along its crests."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Transformation
from lattices.invariance import SiteSign, Symmetry
from lattices.lattice import Lattice
from lattices.spins import AngleShifts
from lattices.theories.checks import check_finite
from lattices.theories.mixtures import log_bessel_zero


@dataclass(frozen=True)
class TorusCorrelated(Action):
    """D angles with S(t) = -κ cos(m·t - φ), m a vector of whole numbers; Z = (2π)ᴰ I₀(κ).

    Args:
        wave: m, not all zero; D of them.
        phase: φ in radians.
        concentration: κ.

    Symmetries: t ↦ t + a s for all whole vectors s with m·s = 0 and every angle a.
    References: Rezende et al. 2020, arXiv:2002.02428, table 2 (correlated).
    """

    wave: tuple[int, ...] = (1, 1)
    phase: float = 1.94
    concentration: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "wave", tuple(self.wave))
        if not any(self.wave) or not all(type(m) is int for m in self.wave):
            raise ValueError(f"expected a wave of whole numbers, not all 0, got {self.wave}: pass (1, 1), say")
        for name in ("phase", "concentration"):
            check_finite(name, getattr(self, name))

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice((len(self.wave),)), Circle())

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return tuple(map(AngleShifts, self._crests()))

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, D) -> (batch,)
        return -self.concentration * ((x * x.new_tensor(self.wave)).sum(-1) - self.phase).cos()

    def log_z(self) -> float:
        """The exact log Z with respect to dᴰt."""
        return len(self.wave) * math.log(2 * math.pi) + log_bessel_zero(abs(self.concentration))

    def _crests(self) -> list[tuple[int, ...]]:
        """D - 1 independent directions with m·s = 0: m_j e_i - m_i e_j for a pivot m_j ≠ 0."""
        pivot = next(j for j, m in enumerate(self.wave) if m)
        others = [i for i in range(len(self.wave)) if i != pivot]
        return [
            tuple(self.wave[pivot] * (k == i) - self.wave[i] * (k == pivot) for k in range(len(self.wave)))
            for i in others
        ]

    @classmethod
    def examples(cls) -> Iterator[TorusCorrelated]:
        """On T² and T³."""
        yield cls()
        yield cls((2, -1, 1), phase=0.5, concentration=2.0)
