"""Reports: what samples of a flow, its Metropolis chain and HMC say about a theory, side by side with errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from flows import parallel
from flows.distribution import Distribution
from flows.quantities import Average, quantities
from flows.sampling.hmc import HMC
from flows.sampling.independence import MetropolisChain, metropolise
from flows.sampling.kernel import History, run
from flows.sampling.reweighting import Measure, WeightedSamples, reweight
from flows.tables import Column
from lattices.action import Action
from lattices.statistics import (
    EffectiveSampleSize,
    Estimate,
    chain_function,
    chain_mean,
    effective_sample_size,
    integrated_autocorrelation_time,
    jackknife,
)
from lattices.theories.ising_dual import IsingDual


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
        metropolis = {"acceptance": f"{self.chain.acceptance:.4f}", **_tau(chain, action)}
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
    """What is measured on every configuration, x (batch, *event) -> {name: (batch, …)}.

    The numbers of `quantities(action)`, and the fields themselves as "x", if asked for.
    """
    looked_at = quantities(action)

    def measure(x: Tensor) -> dict[str, Tensor]:
        return looked_at.measure(x) | ({"x": x} if keep_fields else {})

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

    def run(
        self, action: Action, generator: torch.Generator, keep: bool = False, start: Tensor | None = None
    ) -> tuple[HMC, History]:
        """The tuned kernel and the chains; with `keep`, `measured["x"]` holds every field.

        Args:
            start: the first fields, (n_chains, *event); None for those of `quantities(action).start`.
        """
        kernel = HMC(action, self.step_size, self.n_leapfrog, self.integrator)
        state = kernel.init(quantities(action).start(self.n_chains, generator) if start is None else start)
        tuned, state = kernel.adapt(state, self.warm_up, generator)
        return tuned, run(tuned, state, self.n_steps, generator, measurement(action, keep), desc="HMC")


def hmc_column(history: History, action: Action) -> Column:
    """The HMC column of a table."""
    acceptance = float(history.accepted.mean())
    exponential = chain_mean((-history.delta).exp()) if acceptance < 1 else Estimate(1.0, 0.0, history.delta.numel())
    facts = {
        "acceptance": f"{acceptance:.4f}",
        "of the worst chain": f"{float(history.accepted.mean(1).min()):.4f}",
        **_tau(history.measured, action),
        "⟨exp(-ΔH)⟩": str(exponential),
    }
    return Column("HMC", averages(history.measured, chain_function, action), facts)


def averages(measured: Mapping[str, Tensor], average: Average, action: Action) -> dict[str, Estimate]:
    """The rows of a table from measurements (n, …) or (n_chains, n_steps, …)."""
    return quantities(action).rows(measured, average)


def exact_values(action: Action) -> dict[str, float]:
    """What is known exactly about a theory, by row of its table."""
    return quantities(action).exact()


def _tau(measured: Mapping[str, Tensor], action: Action) -> dict[str, str]:
    """The autocorrelation time of what chains are slowest in, as a fact."""
    symbol, name = quantities(action).slow
    chains = measured[name]
    frozen = bool((chains == chains[:, :1]).all())
    return {f"τ_int({symbol})": "frozen" if frozen else str(integrated_autocorrelation_time(chains))}
