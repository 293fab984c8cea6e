"""The quantities of fields on sites: moments, susceptibility, Binder cumulant, correlator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from flows import plots
from flows.bases import GaussianField
from flows.quantities.quantities import Average, Identity, Quantities, mean
from flows.tables import Column
from lattices.exact import free_field_log_z, free_field_propagator, ising_torus_log_z, phi4_moments
from lattices.observables import binder_cumulant, scalar_observables, susceptibility, time_slice_correlator
from lattices.statistics import Estimate
from lattices.theories.free_field import FreeField
from lattices.theories.ising_dual import IsingDual
from lattices.theories.phi4 import Phi4

LARGEST_QUADRATURE_ERROR = 1e-5
"""Of log Z, up to which a transfer matrix is called exact: soft potentials need more nodes than it has."""


@dataclass(frozen=True)
class ScalarQuantities(Quantities):
    """`scalar_observables`, the correlator of time slices, and the virial. Of a field in Rⁿ the first component."""

    def measure(self, x: Tensor) -> dict[str, Tensor]:  # (batch, *event) -> {name: (batch, …)}
        """The correlator C(t) is for t = 0 … L/2, averaged over both directions; the virial is V⁻¹ Σ_x φ_x ∂S/∂φ_x."""
        observed = x[..., 0] if self.action.field.target.shape else x
        correlator = time_slice_correlator(observed)
        mirrored = correlator.flip(1).roll(1, 1)  # C(-t)
        half = ((correlator + mirrored) / 2)[:, : observed.shape[-1] // 2 + 1]
        virial = -(x * self.action.force(x)).flatten(1).mean(1)
        return {**scalar_observables(observed), "correlator": half, "virial": virial}

    def rows(self, measured: Mapping[str, Tensor], average: Average) -> dict[str, Estimate]:
        m2, absolute = measured["magnetisation_squared"], measured["absolute_magnetisation"]
        rows = {
            "virial": mean(average, measured["virial"]),
            "⟨φ²⟩": mean(average, measured["phi_squared"]),
            "⟨|M|⟩": mean(average, absolute),
            "χ": average(partial(susceptibility, volume=self.action.field.lattice.volume), m2, absolute),
            "U₄": average(binder_cumulant, m2, measured["magnetisation_fourth"]),
        }
        return rows | {f"C({t})": mean(average, values) for t, values in enumerate(measured["correlator"].unbind(-1))}

    def exact(self) -> dict[str, float]:
        """The virial of any action; log Z of free fields, smallest φ⁴ lattices, Ising tori."""
        return {"virial": 1.0, **_solved(self.action)}

    @property
    def identity(self) -> Identity:
        return Identity("⟨φ·∂S/∂φ⟩ / V = 1", "virial", 1.0)

    @property
    def slow(self) -> tuple[str, str]:
        return "M²", "magnetisation_squared"

    def start(self, n: int, generator: torch.Generator) -> Tensor:  # -> (n, *event)
        """Samples of the best Gaussian."""
        return GaussianField.of(self.action).to(generator.device).sample(n, generator=generator)

    def draw(self, columns: Sequence[Column], samples: Mapping[str, Tensor], indices: Tensor, folder: Path) -> None:
        plots.correlator(columns, folder / "correlator.png")
        plots.metropolis_history(samples["magnetisation"], indices, folder / "metropolis.png")


def _solved(action: object) -> dict[str, float]:
    if isinstance(action, FreeField):
        square = float(free_field_propagator(action.extents, action.mass_squared).flat[0])
        return {"log Z": free_field_log_z(action.extents, action.mass_squared), "⟨φ²⟩": square}
    if isinstance(action, IsingDual) and len(action.extents) == 2 and not (action.diagonal or action.uniform_field):
        log_z = ising_torus_log_z(action.extents, action.coupling)
        return {"log Z": log_z - float(action.log_z_ising(0.0)), "log Z (Ising)": log_z}
    if isinstance(action, Phi4) and action.field.lattice.volume <= min(16, 4 * max(action.extents)):  # in seconds
        moments = phi4_moments(action.extents, action.mass_squared, action.quartic)
        exact = moments.quadrature_error < LARGEST_QUADRATURE_ERROR
        return {"log Z": moments.log_z, "⟨φ²⟩": moments.phi_squared} if exact else {}
    return {}
