"""The continuous flow of spins, on spins drawn from coarse to fine, along spanning trees, or independently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flows.architectures.architecture import Architecture
from flows.bases import White
from flows.distribution import Distribution, Transformed
from flows.layers.spin_continuous import SpinContinuousFlow, SpinFlowSpec
from flows.multiscale_spins import MultiscaleSpins
from flows.spanning_trees import SpanningTrees
from lattices.action import Action
from lattices.spins import require_spins
from lattices.theories.on import ON
from lattices.theories.xy import XY

BASES = ("best", "multiscale", "trees", "uniform")


@dataclass(frozen=True)
class SpinContinuous(Architecture):
    """`SpinContinuousFlow` on `MultiscaleSpins`, trained together; or on `SpanningTrees`, or `White(action.field)`.

    From coarse to fine is by far the best base; the two others keep translations and the point group.

    Args:
        n_powers: K of the zonal features and currents of bonds.
        radius: range of the kernels between bonds in lattice units; None for the full range.
        pair_radius: range of the potentials s_x·s_y; None for the full range.
        n_times: Legendre polynomials in time.
        n_steps: integration steps.
        method: "rk4", "dopri5" or "dop853".
        base: "multiscale", "trees" (of XY and O(n)), "uniform"; "best" is multiscale.
        n_orbits: orbits of parents that a spin of the multiscale base looks at.
        n_near: nearest parents that enter its products.
        n_context: number of couplings the flow is conditioned on.
    """

    n_powers: int = 2
    radius: float | None = 2.0
    pair_radius: float | None = None
    n_times: int = 1
    n_steps: int = 3
    method: str = "rk4"
    base: str = "best"
    n_orbits: int = 8
    n_near: int = 8
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
        if self.base == "uniform":
            return White(action.field, dtype)
        if self.base == "trees":
            return SpanningTrees.of(action, dtype)  # type: ignore[arg-type]
        if self.n_context or not isinstance(action, XY | ON):
            return MultiscaleSpins(action.field, self.n_orbits, self.n_near, self.n_context, dtype=dtype)
        return MultiscaleSpins.of(action, self.n_orbits, self.n_near, dtype)

    @classmethod
    def examples(cls) -> Iterator[SpinContinuous]:
        """The defaults, trees, and a local conditional flow."""
        yield cls()
        yield cls(base="trees", n_times=2)
        yield cls(n_powers=1, radius=1.0, pair_radius=2.0, n_context=1, base="uniform")
