"""The continuous flow of spins on spanning trees, or on independent spins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flows.architectures.architecture import Architecture
from flows.bases import White
from flows.distribution import Distribution, Transformed
from flows.layers.spin_continuous import SpinContinuousFlow, SpinFlowSpec
from flows.spanning_trees import SpanningTrees
from lattices.action import Action
from lattices.spins import require_spins
from lattices.theories.on import ON
from lattices.theories.xy import XY

BASES = ("best", "trees", "uniform")


@dataclass(frozen=True)
class SpinContinuous(Architecture):
    """`SpinContinuousFlow` on `SpanningTrees.of(action)`, or on `White(action.field)`.

    Args:
        n_powers: K of the zonal features and currents of bonds.
        radius: range of the kernels between bonds in lattice units; None for the full range.
        pair_radius: range of the potentials s_x·s_y; None for the full range.
        n_times: Legendre polynomials in time.
        n_steps: integration steps.
        method: "rk4", "dopri5" or "dop853".
        base: "trees" (of XY and O(n)), "uniform", or "best": trees where there are any.
        n_context: number of couplings the flow is conditioned on.
    """

    n_powers: int = 2
    radius: float | None = 2.0
    pair_radius: float | None = None
    n_times: int = 2
    n_steps: int = 4
    method: str = "rk4"
    base: str = "best"
    n_context: int = 0

    def __post_init__(self) -> None:
        if self.base not in BASES:
            raise ValueError(f"expected a base, one of {', '.join(BASES)}, got {self.base!r}")

    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        require_spins(action.field)
        spec = SpinFlowSpec(self.n_powers, self.radius, self.pair_radius, self.n_times, self.n_context)
        flow = SpinContinuousFlow(action.field, spec, self.n_steps, self.method, dtype)
        return Transformed(self._base(action, dtype), flow)

    def _base(self, action: Action, dtype: torch.dtype) -> Distribution:
        if self.base == "uniform" or (self.base == "best" and not isinstance(action, XY | ON)):
            return White(action.field, dtype)
        return SpanningTrees.of(action, dtype)  # type: ignore[arg-type]

    @classmethod
    def examples(cls) -> Iterator[SpinContinuous]:
        """The defaults, and a local conditional flow."""
        yield cls()
        yield cls(n_powers=1, radius=1.0, pair_radius=2.0, n_context=1, base="uniform")
