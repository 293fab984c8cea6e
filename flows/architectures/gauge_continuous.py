"""The continuous trivialising flow of gauge links on Haar measure, or on the heat kernel theory in two dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flows.architectures.architecture import Architecture
from flows.bases import White
from flows.distribution import Distribution, Transformed
from flows.heat_kernel import HeatKernel
from flows.layers.gauge_continuous import GaugeContinuousFlow, GaugeFlowSpec
from flows.villain import Villain
from lattices.action import Action
from lattices.gauge import require_links
from lattices.loops import CHAIR, RECTANGLE, SQUARE
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge
from symmetries.lie import SUN

LOOPS = {"rectangle": RECTANGLE, "chair": CHAIR, "square": SQUARE}
BASES = ("best", "haar", "heat-kernel")


@dataclass(frozen=True)
class GaugeContinuous(Architecture):
    """`GaugeContinuousFlow` on `White(action.field)` or, in d = 2, on `HeatKernel.of(action)`, `Villain.of(action)`.

    Args:
        n_powers: K of the features Re and Im Tr P^k of the plaquettes.
        radius: range of the kernels between plaquettes in lattice units; None for the full range.
        pairs: add the potentials of two plaquettes with a common link, where they are new: SU(N), three sites or more
            along each axis. They are worth their cost in d = 2, and dear in d = 4.
        loops: further shapes of Wilson loops, out of rectangle, chair (d >= 3), square.
        n_times: Legendre polynomials in time.
        n_steps: integration steps.
        method: "rk4", "dopri5" or "dop853".
        base: "haar", "heat-kernel" (d = 2; Villain's theory for U(1)), or "best": the latter where there is one.
        n_context: number of couplings the flow is conditioned on.
    """

    n_powers: int = 3
    radius: float | None = 1.5
    pairs: bool = True
    loops: tuple[str, ...] = ()
    n_times: int = 2
    n_steps: int = 4
    method: str = "rk4"
    base: str = "best"
    n_context: int = 0

    def __post_init__(self) -> None:
        if self.base not in BASES or not set(self.loops) <= set(LOOPS):
            raise ValueError(f"expected a base of {BASES} and loops of {tuple(LOOPS)}, got {self.base}, {self.loops}")

    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        new = isinstance(require_links(action.field), SUN) and min(action.field.lattice.extents) >= 3
        loops = tuple(LOOPS[name] for name in self.loops)
        spec = GaugeFlowSpec(self.n_powers, self.radius, self.pairs and new, loops, self.n_times, self.n_context)
        return Transformed(
            self._base(action, dtype), GaugeContinuousFlow(action.field, spec, self.n_steps, self.method, dtype)
        )

    def _base(self, action: Action, dtype: torch.dtype) -> Distribution:
        solved = len(action.field.lattice.extents) == 2
        if self.base != "haar" and solved and isinstance(action, U1Gauge) and action.beta > 0:
            return Villain.of(action, dtype)
        if self.base != "haar" and solved and isinstance(action, SUNGauge) and action.beta > 0:
            return HeatKernel.of(action, dtype)
        if self.base == "heat-kernel":
            raise ValueError(f"expected a gauge theory in two dimensions with beta > 0, got {action}: use base='haar'")
        return White(action.field, dtype)

    @classmethod
    def examples(cls) -> Iterator[GaugeContinuous]:
        """The defaults, and a local conditional flow."""
        yield cls()
        yield cls(n_powers=1, radius=1.0, loops=("rectangle",), n_times=2, n_context=1)
