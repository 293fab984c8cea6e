"""The harmonic flow on the uniform density of one sphere or torus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flows.architectures.architecture import Architecture
from flows.bases import White
from flows.distribution import Transformed
from flows.layers.harmonic import HarmonicFlow, HarmonicSpec
from lattices.action import Action


@dataclass(frozen=True)
class Harmonic(Architecture):
    """`HarmonicFlow` on `White(action.field)`, with the potentials that have the symmetries of the action.

    Few parameters for few dimensions: n_times times the number of harmonics, 80 up to degree 8 on S², 139 up to degree
    6 on S³, 48 up to degree 4 on T².

    Args:
        degree: the highest degree of spherical harmonics, the longest wave on a torus.
        n_times: Legendre polynomials in time.
        n_steps: integration steps.
        method: "rk4", "dopri5" or "dop853".
        n_context: number of couplings the flow is conditioned on.
    """

    degree: int = 5
    n_times: int = 4
    n_steps: int = 8
    method: str = "rk4"
    n_context: int = 0

    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        spec = HarmonicSpec(self.degree, self.n_times, self.n_context, invariant_under=tuple(action.symmetries))
        flow = HarmonicFlow(action.field, spec, self.n_steps, self.method, dtype)
        return Transformed(White(action.field, dtype), flow)

    @classmethod
    def examples(cls) -> Iterator[Harmonic]:
        """The defaults, and a small conditional flow."""
        yield cls()
        yield cls(degree=2, n_times=1, n_steps=4, n_context=1)
