"""Reports: what samples of a flow, its Metropolis chain and HMC say about a scalar theory, side by side with errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flows import parallel
from flows.bases import GaussianField
from flows.distribution import Distribution
from flows.sampling.hmc import HMC
from flows.sampling.independence import MetropolisChain, metropolise
from flows.sampling.kernel import History, run
from flows.sampling.reweighting import Measure, WeightedSamples, reweight
from flows.tables import Column
from lattices.action import Action
from lattices.exact import free_field_log_z, free_field_propagator, ising_torus_log_z, phi4_moments
from lattices.observables import binder_cumulant, scalar_observables, susceptibility, time_slice_correlator
from lattices.statistics import (
    EffectiveSampleSize,
    Estimate,
    chain_function,
    chain_mean,
    effective_sample_size,
    integrated_autocorrelation_time,
    jackknife,
)
from lattices.theories.free_field import FreeField
from lattices.theories.ising_dual import IsingDual
from lattices.theories.phi4 import Phi4

Average = Callable[..., Estimate]
"""A function of averages: (function, *observables) -> Estimate."""

LARGEST_QUADRATURE_ERROR = 1e-5
"""Of log Z, up to which a transfer matrix is called exact: soft potentials need more nodes than it has."""


class Corrected(NamedTuple):
    """Samples of a flow with everything that makes them exact: their weights, and a Metropolis chain through them."""

    samples: WeightedSamples
    chain: MetropolisChain
    ess: EffectiveSampleSize

    def columns(self, action: Action) -> list[Column]:
        """The reweighted and the Metropolis column of a table."""
        measured, weighted = self.samples.measured, partial(jackknife, log_weights=self.samples.log_weights)
        chain = {name: measured[name][self.chain.indices][None] for name in measured if name != "x"}
        ess = f"{self.ess.value:.4f} [{self.ess.low:.4f}, {self.ess.high:.4f}]"
        metropolis = {"acceptance": f"{self.chain.acceptance:.4f}", "τ_int(M²)": str(_tau(chain))}
        return [
            Column("flow, reweighted", {**self.log_z(action), **averages(measured, weighted, action)}, {"ESS": ess}),
            Column("flow, Metropolis", averages(chain, chain_function, action), metropolis),
        ]

    def log_z(self, action: Action) -> dict[str, Estimate]:
        """log Z of the density, and of the Ising model when the density is its dual."""
        found = self.samples.log_z()
        if not isinstance(action, IsingDual):
            return {"log Z": found}
        return {"log Z": found, "log Z (Ising)": Estimate(float(action.log_z_ising(found.value)), found.error, found.n)}


def measurement(action: Action, keep_fields: bool = False) -> Measure:
    """What is measured on every configuration, x (batch, *extents) -> {name: (batch, …)}.

    `scalar_observables`; the correlator C(t) of time slices, t = 0 … L/2, averaged over both directions; the virial
    V⁻¹ Σ_x φ_x ∂S/∂φ_x, whose average is 1 for any action; and the fields themselves, if asked for. Of a field in Rⁿ
    the first component is observed.
    """

    def measure(x: Tensor) -> dict[str, Tensor]:
        observed = x[..., 0] if action.field.target.shape else x
        correlator = time_slice_correlator(observed)
        mirrored = correlator.flip(1).roll(1, 1)  # C(-t)
        half = ((correlator + mirrored) / 2)[:, : observed.shape[-1] // 2 + 1]
        virial = -(x * action.force(x)).flatten(1).mean(1)
        return {
            **scalar_observables(observed),
            "correlator": half,
            "virial": virial,
            **({"x": x} if keep_fields else {}),
        }

    return measure


def correct(
    flow: Distribution, action: Action, n: int, generator: torch.Generator, keep_fields: bool = False
) -> Corrected:
    """Draw n samples of a flow (over all ranks), and correct them: by weights, and by independence Metropolis.

    Args:
        keep_fields: store the fields themselves in `samples.measured["x"]`, n V numbers.
    """
    share = -(-n // parallel.world_size())
    chunk = max(64, 2**17 // action.field.lattice.volume)
    samples = reweight(flow, action, share, generator, measurement(action, keep_fields), chunk)
    samples = samples.gathered(parallel.gather)
    chain = metropolise(samples.log_weights, generator)
    return Corrected(samples, chain, effective_sample_size(samples.log_weights, generator))


@dataclass(frozen=True)
class HMCRun:
    """How to run HMC for a comparison: many chains at once, warmed up and tuned, then frozen.

    Args:
        n_chains: chains that run side by side.
        n_steps: measured trajectories of each chain.
        warm_up: trajectories before, which tune the step size.
        step_size: first guess of the integrator's step.
        n_leapfrog: integrator steps per trajectory.
        integrator: "leapfrog", "omf2" or "omf4".
    """

    n_chains: int = 128
    n_steps: int = 1000
    warm_up: int = 200
    step_size: float = 0.1
    n_leapfrog: int = 10
    integrator: str = "leapfrog"

    def __post_init__(self) -> None:
        if self.n_chains < 1 or self.n_steps < 2 or self.warm_up < 0:
            raise ValueError(f"expected n_chains >= 1, n_steps >= 2, warm_up >= 0, got {self}: raise them")

    def run(self, action: Action, generator: torch.Generator, keep: bool = False) -> tuple[HMC, History]:
        """The tuned kernel and the chains; with `keep`, `measured["x"]` holds every field."""
        kernel = HMC(action, self.step_size, self.n_leapfrog, self.integrator)
        start = GaussianField.of(action).to(generator.device).sample(self.n_chains, generator=generator)
        state = kernel.init(start)
        tuned, state = kernel.adapt(state, self.warm_up, generator)
        return tuned, run(tuned, state, self.n_steps, generator, measurement(action, keep), desc="HMC")


def hmc_column(history: History, action: Action) -> Column:
    """The HMC column of a table."""
    acceptance = float(history.accepted.mean())
    exponential = chain_mean((-history.delta).exp()) if acceptance < 1 else Estimate(1.0, 0.0, history.delta.numel())
    facts = {
        "acceptance": f"{acceptance:.4f}",
        "of the worst chain": f"{float(history.accepted.mean(1).min()):.4f}",
        "τ_int(M²)": str(_tau(history.measured)),
        "⟨exp(-ΔH)⟩": str(exponential),
    }
    return Column("HMC", averages(history.measured, chain_function, action), facts)


def averages(measured: Mapping[str, Tensor], average: Average, action: Action) -> dict[str, Estimate]:
    """The rows of a table from measurements (n, …) or (n_chains, n_steps, …)."""
    m2, absolute = measured["magnetisation_squared"], measured["absolute_magnetisation"]
    volume = action.field.lattice.volume
    rows = {
        "virial": average(_same, measured["virial"]),
        "⟨φ²⟩": average(_same, measured["phi_squared"]),
        "⟨|M|⟩": average(_same, absolute),
        "χ": average(partial(susceptibility, volume=volume), m2, absolute),
        "U₄": average(binder_cumulant, m2, measured["magnetisation_fourth"]),
    }
    for t, values in enumerate(measured["correlator"].unbind(-1)):
        rows[f"C({t})"] = average(_same, values)
    return rows


def _same(mean: np.ndarray) -> np.ndarray:
    return mean


def exact_values(action: Action) -> dict[str, float]:
    """What is known exactly: the virial of any action; log Z of free fields, smallest φ⁴ lattices, Ising tori."""
    return {"virial": 1.0, **_solved(action)}


def _solved(action: Action) -> dict[str, float]:
    extents = action.field.lattice.extents
    if isinstance(action, FreeField):
        square = float(free_field_propagator(extents, action.mass_squared).flat[0])
        return {"log Z": free_field_log_z(extents, action.mass_squared), "⟨φ²⟩": square}
    if isinstance(action, IsingDual) and len(extents) == 2 and not (action.diagonal or action.uniform_field):
        log_z = ising_torus_log_z(extents, action.coupling)
        return {"log Z": log_z - float(action.log_z_ising(0.0)), "log Z (Ising)": log_z}
    if isinstance(action, Phi4) and action.field.lattice.volume <= min(16, 4 * max(extents)):  # in seconds
        moments = phi4_moments(extents, action.mass_squared, action.quartic)
        exact = moments.quadrature_error < LARGEST_QUADRATURE_ERROR
        return {"log Z": moments.log_z, "⟨φ²⟩": moments.phi_squared} if exact else {}
    return {}


def _tau(measured: Mapping[str, Tensor]) -> Estimate:
    return integrated_autocorrelation_time(measured["magnetisation_squared"])
