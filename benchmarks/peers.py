"""What else could one do with the same seconds? HMC, annealed importance sampling, and a coupling flow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flows.architectures.coupling import CouplingFlow
from flows.bases import GaussianField
from flows.sampling.annealing import Annealing
from flows.sampling.hmc import HMC
from flows.sampling.kernel import run
from flows.sampling.reweighting import reweight
from flows.training import fit
from flows.updates.gradient import GradientUpdate
from flows.updates.update import Problem
from lattices.action import Action
from lattices.statistics import integrated_autocorrelation_time


class Row(NamedTuple):
    """One method: effective samples (of M² for chains) per second, its wall time, and what else there is to say."""

    method: str
    effective_per_second: float
    seconds: float
    note: str

    def __str__(self) -> str:
        return f"{self.method:28s} {self.effective_per_second:12.1f} effective/s {self.seconds:8.1f} s   {self.note}"


def rows(action: Action, result: dict[str, Any], train_couplings: bool) -> Iterator[Row]:
    """The flow of `result`, HMC and annealing for as many seconds, a coupling flow with as many to train."""
    seconds = result["sample_seconds"]
    yield Row("continuous flow", result["ess"] * result["n"] / seconds, seconds, f"ESS {result['ess']:.4f}")
    yield hmc(action, seconds)
    yield annealing(action, seconds)
    if train_couplings:
        for transform in ("affine", "spline"):
            yield couplings(action, result["train_seconds"], transform)


def hmc(action: Action, seconds: float, n_chains: int = 256) -> Row:
    """HMC, tuned in warm-up, then for `seconds`; independent samples are n / 2τ_int(M²)."""
    generator = torch.Generator().manual_seed(2)
    kernel = HMC(action, 0.1, 10)
    tuned, state = kernel.adapt(kernel.init(action.field.random(n_chains, generator)), 200, generator)
    pilot, used = timed(lambda: run(tuned, state, 20, generator))
    n_steps = max(100, int(20 * seconds / used))
    history, used = timed(lambda: run(tuned, pilot.state, n_steps, generator, _magnetisation_squared))
    tau = integrated_autocorrelation_time(history.measured["m2"])
    note = f"τ_int(M²) = {tau}, acceptance {float(history.accepted.mean()):.2f}, {n_chains} chains"
    return Row("HMC", n_chains * n_steps / (2 * tau.value) / used, used, note)


def annealing(action: Action, seconds: float, n_stages: int = 50) -> Row:
    """Annealed importance sampling from the best Gaussian, HMC steps between the stages, for `seconds`."""
    generator = torch.Generator().manual_seed(3)
    sampler = Annealing(GaussianField.of(action), action, lambda path: HMC(path, 0.1, 5), n_stages)
    sampler = sampler.tuned(64, 20, generator)
    _, used = timed(lambda: sampler.sample(256, generator))
    n = max(1024, int(256 * seconds / used))
    samples, used = timed(lambda: sampler.sample(n, generator, _magnetisation_squared))
    ess, log_z = samples.effective_sample_size(generator), samples.log_z()
    note = f"ESS {ess.value:.3f} at n = {n}, log Z (density) {log_z}, {n_stages} stages"
    return Row("annealed importance sampling", ess.value * n / used, used, note)


def couplings(action: Action, train_seconds: float, transform: str) -> Row:
    """A coupling flow, trained by path gradients for as long as the continuous flow was; then 10⁴ samples."""
    generator = torch.Generator().manual_seed(4)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        problem = Problem(CouplingFlow(transform=transform).build(action, torch.float32), action)
    end = time.perf_counter() + train_seconds
    update = GradientUpdate(learning_rate=3e-3, batch_size=128, schedule="constant", warm_up=0.0)
    record = fit(problem, update, 10**6, generator=generator, callback=lambda _: time.perf_counter() > end)
    flow = problem.flow.double()
    samples, used = timed(lambda: reweight(flow, action, 10_000, generator, _magnetisation_squared))
    ess = samples.effective_sample_size(generator)
    n_parameters = sum(p.numel() for p in flow.parameters())
    note = f"ESS {ess.value:.4f} at n = 10000, {n_parameters} parameters, {len(record.history)} steps"
    return Row(f"{transform} coupling flow", ess.value * 10_000 / used, used, note)


def _magnetisation_squared(x: Tensor) -> dict[str, Tensor]:
    return {"m2": x.flatten(1).mean(1) ** 2}


def timed(function):  # type: ignore[no-untyped-def]
    """What the function returns, and the seconds it took."""
    start = time.perf_counter()
    value = function()
    return value, time.perf_counter() - start
