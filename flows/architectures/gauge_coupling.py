"""Couplings of gauge links on Haar measure: exact in both directions, of any group, in any dimension."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flows.architectures.architecture import Architecture
from flows.bases import White
from flows.bijection import Bijection, Chain
from flows.conditioners.loop_convolutions import LoopSpec
from flows.distribution import Transformed
from flows.layers.gauge_coupling import PlaquetteCoupling
from flows.layers.gauge_residual import ResidualCoupling
from flows.layers.spectral_coupling import SpectralCoupling
from flows.transforms.circular import CircularSpline
from flows.transforms.circular_mixture import CircularMixture
from flows.transforms.spectral import SpectralSpline
from lattices.action import Action
from lattices.fields import FieldSpace
from lattices.gauge import require_links
from lattices.link_partitions import LinkPartition, link_cycle, parity_cycle
from symmetries.lie import SUN

MOVES = ("plaquette", "residual")
TRANSFORMS = ("mixture", "spline")


@dataclass(frozen=True)
class GaugeCoupling(Architecture):
    """`n_cycles` cycles of couplings that touch every link once, on `White(action.field)`; the identity at the start.

    Args:
        n_cycles: of `period` d layers for plaquettes, of 2 d for residuals.
        moves: "plaquette" moves plaquettes (`PlaquetteCoupling` in U(1), `SpectralCoupling` in SU(N)), "residual"
            moves links along their staples (`ResidualCoupling`).
        transform: of U(1) plaquettes, "mixture" or "spline"; SU(N) has splines.
        n_bins: bins of a spline, components of a mixture.
        depth: spectral maps in a row, for N > 2.
        period: columns of active links are so far apart; 2 needs the fewest layers, 4 sees the most frozen loops.
        limit: of the residual coefficients, below 1.
        hidden: channels of the convolutions of each conditioner.
        kernel_size: odd number of sites per axis.
        rectangles: show 2 × 1 loops to the conditioners, beside plaquettes.
        n_context: number of couplings the flow is conditioned on.
    """

    n_cycles: int = 2
    moves: str = "plaquette"
    transform: str = "mixture"
    n_bins: int = 8
    depth: int = 2
    period: int = 4
    limit: float = 0.9
    hidden: tuple[int, ...] = (8, 8)
    kernel_size: int = 3
    rectangles: bool = True
    n_context: int = 0

    def __post_init__(self) -> None:
        if self.n_cycles < 1:
            raise ValueError(f"expected n_cycles >= 1, got {self.n_cycles}: 2 is a good start")
        for name, known in (("moves", MOVES), ("transform", TRANSFORMS)):
            if getattr(self, name) not in known:
                raise ValueError(f"expected {name}, one of {', '.join(known)}, got {getattr(self, name)!r}")

    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        require_links(action.field)
        layers = [
            self._layer(action.field, partition, dtype)
            for cycle in range(self.n_cycles)
            for partition in self._cycle(action.field, cycle)
        ]
        return Transformed(White(action.field, dtype), Chain(*layers))

    def _cycle(self, field: FieldSpace, number: int) -> list[LinkPartition]:
        if self.moves == "residual":
            return parity_cycle(field.lattice)
        return link_cycle(field.lattice, self.period, turn=number)

    def _layer(self, field: FieldSpace, partition: LinkPartition, dtype: torch.dtype) -> Bijection:
        group, spec = require_links(field), LoopSpec(self.hidden, self.kernel_size, self.rectangles, self.n_context)
        if self.moves == "residual":
            return ResidualCoupling(field, partition, spec, self.limit, dtype=dtype)
        if isinstance(group, SUN):
            spectral = SpectralSpline(group.n, self.n_bins, self.depth if group.n > 2 else 1)
            return SpectralCoupling(field, partition, spectral, spec, dtype)
        transform = CircularMixture(self.n_bins) if self.transform == "mixture" else CircularSpline(self.n_bins)
        return PlaquetteCoupling(field, partition, transform, spec, dtype)

    @classmethod
    def examples(cls) -> Iterator[GaugeCoupling]:
        """Plaquettes, a conditional flow, and residuals."""
        yield cls(n_cycles=1, hidden=(3,))
        yield cls(n_cycles=1, transform="spline", n_bins=3, hidden=(3,), n_context=1)
        yield cls(n_cycles=1, moves="residual", hidden=(3,))
