"""Compact U(1) gauge theory in two, three and four dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from lattices.action import Action
from lattices.fields import FieldSpace, Transformation
from lattices.gauge import OneLink
from lattices.invariance import Symmetry
from lattices.theories.wilson import SYMMETRIES, check_gauge, link_field, wilson_energy, wilson_force


@dataclass(frozen=True)
class U1Gauge(Action):
    """Compact U(1) with Wilson's action: links e^{iθ_μ(x)}, stored as angles; no additive constant.

        S(θ) = -β [ (1 - 8 c₁) Σ_P cos θ_P + c₁ Σ_R cos θ_R ]

    over all plaquettes P and, with c₁ ≠ 0, all 1 × 2 rectangles R. Cost V. The reference measure is Haar, Π dθ/2π.

    Args:
        extents: sites along each axis, e.g. 8 8.
        beta: β ≥ 0, dimensionless.
        rectangle: c₁ of an improved action; 0 is Wilson's.

    Symmetries: gauge, translations, point group, charge conjugation, centre.
    References: Wilson 1974, Phys. Rev. D 10, 2445.
    """

    extents: tuple[int, ...]
    beta: float
    rectangle: float = 0.0

    def __post_init__(self) -> None:
        check_gauge(self)

    @property
    def field(self) -> FieldSpace:
        return link_field(self.extents, 1)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return SYMMETRIES

    @property
    def broken(self) -> Transformation:
        return OneLink()

    def energy(self, x: Tensor) -> Tensor:  # (batch, d, *extents) -> (batch,)
        return wilson_energy(self.field, x, self.beta, self.rectangle)

    def force(self, x: Tensor) -> Tensor:  # (batch, d, *extents) -> (batch, d, *extents)
        return wilson_force(self.field, x, self.beta, self.rectangle)

    @classmethod
    def examples(cls) -> Iterator[U1Gauge]:
        """In two, three and four dimensions, with and without rectangles."""
        yield cls(extents=(4, 4), beta=2.0)
        yield cls(extents=(3, 4), beta=1.0, rectangle=-0.1)
        yield cls(extents=(2, 3, 2), beta=1.5)
        yield cls(extents=(2, 2, 2, 2), beta=0.5)
