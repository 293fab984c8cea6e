"""What else could one do with the same seconds? HMC and heat bath, which may freeze, and exact sampling in d = 2."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from gauge_cases import Gauge
from peers import timed
from torch import Tensor

from flows.free_energy import ThermodynamicIntegration
from flows.sampling.exact_gauge import ExactPlane
from flows.sampling.heatbath import HeatBath
from flows.sampling.hmc import HMC
from flows.sampling.kernel import History, Kernel, State, run
from lattices.action import Action, Combination
from lattices.field_strength import geometric_charge, has_geometric_charge
from lattices.gauge import require_links
from lattices.statistics import Estimate, chain_mean, integrated_autocorrelation_time
from lattices.wilson_loops import plaquette

LONGEST = 20.0
"""Seconds that no peer exceeds, warm-up aside."""


class Row(NamedTuple):
    """One method: effective samples of the plaquette and of Q² per second, its wall time, and what else to say."""

    method: str
    plaquette_per_second: float
    q2_per_second: float | None
    seconds: float
    note: str

    def __str__(self) -> str:
        charge = "" if self.q2_per_second is None else f" {self.q2_per_second:10.1f} of Q²"
        rates = f"{self.plaquette_per_second:10.1f} effective/s of P{charge}"
        return f"{self.method:16s}{rates} {self.seconds:7.1f} s   {self.note}"


def rows(action: Gauge, result: dict[str, Any]) -> Iterator[Row]:
    """The flow of `result` (training excluded), then its peers for as many seconds."""
    rate = result["ess"] * result["n"] / result["sample_seconds"]
    charge = rate if has_geometric_charge(action.field) else None
    note = f"ESS {result['ess']:.4f}, and {result['train_seconds']:.0f} s of training before"
    yield Row("continuous flow", rate, charge, result["sample_seconds"], note)
    seconds = min(LONGEST, result["sample_seconds"])
    yield chains("HMC", HMC(action, 0.1, 10), seconds)
    yield chains("heat bath", HeatBath(action), seconds)
    if len(action.extents) == 2:
        yield exact(action, seconds)


def measure(action: Gauge, x: Tensor) -> dict[str, Tensor]:  # (batch, *event) -> {name: (batch,)}
    """The mean plaquette, and the charge of U(1) in d = 2 with its square."""
    values = {"plaquette": plaquette(action.field, x)}
    if has_geometric_charge(action.field):
        charge = geometric_charge(action.field, x).round()
        values |= {"charge": charge, "q2": charge**2}
    return values


def n_numbers(action: Gauge) -> int:
    """Real numbers in a field."""
    return action.field.lattice.volume * len(action.extents) * require_links(action.field).dim


def n_chains(action: Gauge) -> int:
    """Chains side by side: enough to use vector units, few enough to leave long chains in a minute."""
    return min(256, max(16, 2**16 // n_numbers(action)))


def chains(method: str, kernel: HMC | HeatBath, seconds: float, warm_up: int = 100) -> Row:
    """A Markov chain Monte Carlo method from random links, tuned in warm-up, then for `seconds`.

    Independent samples are n / 2 τ_int.
    """
    action, generator = kernel.action, torch.Generator().manual_seed(2)
    start = action.field.random(n_chains(action), generator)
    tuned, state = kernel.adapt(kernel.init(start), warm_up, generator)
    history, used = measured(tuned, state, seconds, generator)
    charge, values = history.measured.get("charge"), history.measured
    rate = effective(values["plaquette"]).n / used
    rate_of_q2 = None if charge is None else effective(values["q2"], worth(charge)).n / used
    return Row(method, rate, rate_of_q2, used, said(history))


def measured(kernel: Kernel, state: State, seconds: float, generator: torch.Generator) -> tuple[History, float]:
    """A history of about as many seconds, and how many they were."""
    action = kernel.action  # type: ignore[attr-defined]
    pilot, used = timed(lambda: run(kernel, state, 5, generator))
    n_steps = max(50, int(5 * seconds / used))
    return timed(lambda: run(kernel, pilot.state, n_steps, generator, partial(measure, action)))


class Effective(NamedTuple):
    """How many independent samples chains are worth, and what is known of τ_int."""

    n: float
    tau: str


def effective(values: Tensor, most: float = math.inf) -> Effective:  # (n_chains, n_steps)
    """n / 2 τ_int, but not more than `most`; nothing where no chain ever moves."""
    if (values == values[:, :1]).all():
        return Effective(0.0, "∞ (frozen)")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tau = integrated_autocorrelation_time(values)
    n = values.numel() / (2 * tau.value)
    if n > most:
        return Effective(most, f"> {values.numel() / (2 * most):.0f}")
    return Effective(n, f"> {tau.value:.0f}" if caught else str(tau))


def worth(charge: Tensor) -> float:  # (n_chains, n_steps)
    """How many independent samples the changes of Q can be worth: an independent one differs with 1 - Σ P(Q)².

    τ_int of chains that hardly tunnel does not tell: it takes where they began for a sample.
    """
    frequencies = charge.unique(return_counts=True)[1] / charge.numel()
    return _jumps(charge) / max(1 - float(frequencies.square().sum()), 1e-12)


def said(history: History) -> str:
    """Autocorrelation, means and tunnelling of a run."""
    values, acceptance = history.measured, float(history.accepted.mean())
    shape = " × ".join(map(str, history.accepted.shape))
    parts = [f"τ_int(P) {effective(values['plaquette']).tau}, ⟨P⟩ {_mean(values['plaquette'])}"]
    if "q2" in values:
        tau, jumps = effective(values["q2"], worth(values["charge"])).tau, _jumps(values["charge"])
        parts += [f"τ_int(Q²) {tau}, ⟨Q²⟩ {_mean(values['q2'])}, {jumps} changes of Q"]
    return ", ".join([*parts, f"acceptance {acceptance:.2f}", f"chains × steps {shape}"])


def _jumps(charge: Tensor) -> int:
    """How often the charge of a chain changed."""
    return int((charge.diff(dim=1) != 0).sum())


def _mean(values: Tensor) -> str:
    """The mean of chains; without an error where nothing moves."""
    if (values == values[:, :1]).all():
        return f"{float(values.mean()):.3f} (of frozen chains)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said already, of τ_int
        return str(chain_mean(values))


def exact(action: Gauge, seconds: float) -> Row:
    """Independent samples of the theory itself, for `seconds`."""
    generator, sampler = torch.Generator().manual_seed(5), ExactPlane(action)
    chunk = n_chains(action)
    sampler.sample(chunk, generator=generator)  # tables are built at the first call
    _, used = timed(lambda: sampler.sample(chunk, generator=generator))
    n_chunks = max(1, int(seconds / used))
    _, used = timed(lambda: [sampler.sample(chunk, generator=generator) for _ in range(n_chunks)])
    n = chunk * n_chunks
    return Row("exact sampler", n / used, n / used if has_geometric_charge(action.field) else None, used, f"n = {n}")


def log_z_by_heat_bath(action: Gauge, seconds: float = LONGEST, n_nodes: int = 8) -> Estimate:
    """log Z by thermodynamic integration in β from Haar measure, Z(0) = 1, about `seconds` of heat bath.

    log Z(β) = -∫₀^β dβ' ⟨S⟩_β' / β'
    """
    generator = torch.Generator().manual_seed(6)
    free, x = replace(action, beta=0.0), action.field.random(n_chains(action), generator)
    _, used = timed(lambda: run(HeatBath(action), HeatBath(action).init(x), 5, generator))
    n_warmup = 20
    n_steps = max(20, int(5 * seconds / used / n_nodes) - n_warmup)
    method = ThermodynamicIntegration(free, action, heat_bath, n_nodes, n_steps, n_warmup)
    free_energy = method.estimate(x, generator)
    return Estimate(-free_energy.value, free_energy.error, free_energy.n)


def heat_bath(path: Action) -> HeatBath:
    """The heat bath of a combination of Wilson actions, itself one of them."""
    return HeatBath(replace(_wilson(path), beta=_beta(path)))


def _beta(path: Action) -> float:
    return sum(c * _beta(part) for c, part in path.terms) if isinstance(path, Combination) else path.beta  # type: ignore[attr-defined]


def _wilson(path: Action) -> Gauge:
    return _wilson(path.terms[0][1]) if isinstance(path, Combination) else path  # type: ignore[return-value]
