"""The harmonic flow on the uniform density of one sphere or torus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flows.architectures.architecture import Architecture
from flows.bases import White
from flows.distribution import Transformed
from flows.layers.harmonic import HarmonicFlow, HarmonicSpec
from flows.transforms.harmonics import n_harmonics
from lattices.action import Action
from lattices.fields import FieldSpace

MOST_DEGREE, MOST_FUNCTIONS = 8, 150


@dataclass(frozen=True)
class Harmonic(Architecture):
    """`HarmonicFlow` on `White(action.field)`, with the potentials that have the symmetries of the action.

    Few parameters for few dimensions: n_times times the number of harmonics, 80 up to degree 8 on S², 139 up to degree
    6 on S³, 48 up to degree 4 on T². A concentrated target needs no higher ones, because the flow composes its steps.

    Args:
        degree: the highest degree of spherical harmonics, the longest wave on a torus; None for the largest up to 8
            with at most 150 functions: 8 on S² and T¹, 7 on T², 6 on S³, 3 on T³.
        n_times: Legendre polynomials in time.
        n_steps: integration steps.
        method: "rk4", "dopri5" or "dop853".
        n_context: number of couplings the flow is conditioned on.
    """

    degree: int | None = None
    n_times: int = 2
    n_steps: int = 8
    method: str = "rk4"
    n_context: int = 0

    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        degree = _affordable(action.field) if self.degree is None else self.degree
        spec = HarmonicSpec(degree, self.n_times, self.n_context, invariant_under=tuple(action.symmetries))
        flow = HarmonicFlow(action.field, spec, self.n_steps, self.method, dtype)
        return Transformed(White(action.field, dtype), flow)

    @classmethod
    def examples(cls) -> Iterator[Harmonic]:
        """The defaults, and a small conditional flow."""
        yield cls()
        yield cls(degree=2, n_times=1, n_steps=4, n_context=1)


def _affordable(field: FieldSpace) -> int:
    degrees = (d for d in range(MOST_DEGREE, 1, -1) if n_harmonics(field, d) <= MOST_FUNCTIONS)
    return next(degrees, 1)
