"""SU(N) gauge theory in two, three and four dimensions."""

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
class SUNGauge(Action):
    """SU(N) with Wilson's action, and improved ones; no additive constant.

        S(U) = -(β/N) [ (1 - 8 c₁) Σ_P Re Tr U_P + c₁ Σ_R Re Tr U_R ]

    over all plaquettes P and, with c₁ ≠ 0, all 1 × 2 rectangles R. In d = 4, c₁ = -1/12 is the tree-level
    Lüscher–Weisz action, c₁ = -0.331 Iwasaki's. Cost V N³. The reference measure is Haar.

    Args:
        extents: sites along each axis, e.g. 8 8.
        n: N ≥ 2.
        beta: β ≥ 0, dimensionless (2N/g² in d = 4).
        rectangle: c₁; 0 is Wilson's action.

    Symmetries: gauge, translations, point group, charge conjugation, centre.
    References: Wilson 1974, Phys. Rev. D 10, 2445; Lüscher and Weisz 1985, Commun. Math. Phys. 97, 59.
    """

    extents: tuple[int, ...]
    n: int
    beta: float
    rectangle: float = 0.0

    def __post_init__(self) -> None:
        check_gauge(self)
        link_field(self.extents, self.n)
        if self.n < 2:
            raise ValueError(f"expected n >= 2, got {self.n}: for U(1) use U1Gauge")

    @property
    def field(self) -> FieldSpace:
        return link_field(self.extents, self.n)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return SYMMETRIES

    @property
    def broken(self) -> Transformation:
        return OneLink()

    def energy(self, x: Tensor) -> Tensor:  # (batch, d, *extents, N, N) -> (batch,)
        return wilson_energy(self.field, x, self.beta, self.rectangle)

    def force(self, x: Tensor) -> Tensor:  # (batch, d, *extents, N, N) -> (batch, d, *extents, N, N)
        return wilson_force(self.field, x, self.beta, self.rectangle)

    @classmethod
    def examples(cls) -> Iterator[SUNGauge]:
        """SU(2), SU(3) and SU(4), in two to four dimensions, with and without rectangles."""
        yield cls(extents=(4, 4), n=2, beta=2.2)
        yield cls(extents=(3, 3), n=3, beta=5.0, rectangle=-1 / 12)
        yield cls(extents=(2, 3, 2), n=2, beta=2.0)
        yield cls(extents=(2, 2), n=4, beta=6.0)
        yield cls(extents=(2, 2, 2, 2), n=3, beta=1.0)
