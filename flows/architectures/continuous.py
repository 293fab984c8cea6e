"""The continuous equivariant flow on the best Gaussian of an action: few parameters, high overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flows.architectures.architecture import Architecture
from flows.bases import GaussianField
from flows.distribution import Transformed
from flows.layers.continuous import ContinuousFlow, VectorFieldSpec
from lattices.action import Action


@dataclass(frozen=True)
class Continuous(Architecture):
    """`ContinuousFlow` on `GaussianField.of(action)`.

    Args:
        frequencies: ω_f of the features sin(ω_f ψ), as multiples of 1/σ, σ² the mean variance of the base.
        smoothing: masses of further features on ψ = m²/(m² + k̂²) φ.
        radius: range of the orbit kernels in lattice units; None for the full range.
        tails: masses of Yukawa kernels beside them.
        n_times: Legendre polynomials in time.
        n_steps: integration steps.
        method: "rk4", "dopri5" or "dop853".
        odd: keep φ ↦ -φ; set it to False for actions without that symmetry.
        n_context: number of couplings the flow is conditioned on.
    """

    frequencies: tuple[float, ...] = (0.3, 0.6, 0.9, 1.2, 1.5)
    smoothing: tuple[float, ...] = ()
    radius: float | None = 3.0
    tails: tuple[float, ...] = (0.15, 0.3, 0.6, 1.2, 2.4)
    n_times: int = 4
    n_steps: int = 8
    method: str = "rk4"
    odd: bool = True
    n_context: int = 0

    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        base = GaussianField.of(action, dtype=dtype)
        deviation = float(base.spectrum.double().mean().sqrt())
        frequencies = tuple(omega / deviation for omega in self.frequencies)
        spec = VectorFieldSpec(
            frequencies, self.smoothing, self.radius, self.tails, self.n_times, self.odd, n_context=self.n_context
        )
        return Transformed(base, ContinuousFlow(action.field, spec, self.n_steps, self.method, dtype))

    @classmethod
    def examples(cls) -> Iterator[Continuous]:
        """The defaults, and a local conditional flow."""
        yield cls(n_times=2)
        yield cls(frequencies=(0.5, 1.0), radius=1.5, n_times=2, n_context=1)
