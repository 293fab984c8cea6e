"""What else could one do? Clusters and HMC for as many seconds, and the circular splines of normflows."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import cases
import gauge_peers
import manifold_cases
import timing
import torch
from normflows.flows import CircularCoupledRationalQuadraticSpline
from normflows.utils.splines import unconstrained_rational_quadratic_spline
from peers import timed
from torch import Tensor

from flows.architectures.torus import TorusFlow
from flows.bases import White
from flows.bijection import Bijection, Chain
from flows.distribution import Transformed
from flows.normflows_bridge import FromNormflows
from flows.objectives import ReverseKL
from flows.quantities import DensityQuantities, quantities
from flows.sampling.choice import sampler_for
from flows.sampling.hmc import HMC
from flows.sampling.kernel import History, Kernel, State, run
from flows.sampling.reweighting import Measure, reweight
from flows.training import fit
from flows.transforms.circular import circular_spline, wrap
from flows.updates.gradient import GradientUpdate
from flows.updates.update import Problem
from lattices.action import Action
from lattices.spin_observables import energy
from lattices.statistics import Estimate, chain_mean

LONGEST, N_CHAINS, LONG = 20.0, 256, 60.0
"""Seconds that no peer exceeds, chains side by side, and seconds of a run that is a reference."""
N_BINS, N_HIDDEN, N_LAYERS, N_POINTS = 8, 16, 2, 8192
"""Of the splines that are compared."""


def kl(log_weights: Tensor, log_z: float) -> Estimate:  # (n,)
    """KL(q|p) = ⟨log q + S⟩ + log Z."""
    n = len(log_weights)
    return Estimate(log_z - float(log_weights.mean()), float(log_weights.std()) / n**0.5, n)


class Row(NamedTuple):
    """One method: effective samples of the observable per second, its wall time, what it finds, and the rest."""

    method: str
    effective_per_second: float
    seconds: float
    mean: float
    error: float
    note: str

    def __str__(self) -> str:
        rate = f"{self.effective_per_second:12.1f} effective/s {self.seconds:8.1f} s"
        return f"{self.method:22s}{rate}   mean {self.mean:.6f} ± {self.error:.6f}, {self.note}"


def observable(action: Action) -> tuple[str, Measure]:
    """⟨E⟩ per site of spins; the first coordinate of densities, or its cosine."""
    found = quantities(action)
    if isinstance(found, DensityQuantities):
        return found.names[0], lambda x: {"mean": found.moments(x)[:, 0]}
    return "⟨E⟩", lambda x: {"mean": energy(action.field, x)}


def rows(case: cases.Case, result: dict[str, Any]) -> Iterator[Row]:
    """The flow of `result` (training excluded), then its peers for as many seconds."""
    action, seconds = case.action, result["sample_seconds"]
    note = f"ESS {result['ess']:.4f}, and {result['seconds']:.0f} s of training before"
    rate = result["ess"] * result["n"] / seconds
    yield Row(type(case.stages[-1].architecture).__name__, rate, seconds, result["mean"], result["mean_error"], note)
    seconds = min(LONGEST, seconds)
    if result["symbol"] == "⟨E⟩":
        yield chains("clusters, heat bath", sampler_for(action), action, seconds)
    yield chains("HMC", HMC(action, 0.1, 10, jitter=0.1), action, seconds)


def chains(method: str, kernel: Kernel, action: Action, seconds: float, warm_up: int = 100) -> Row:
    """A Markov chain Monte Carlo method from random points, tuned in warm-up, then for `seconds`.

    Independent samples are n / 2 τ_int of the observable.
    """
    generator = torch.Generator().manual_seed(2)
    tuned, state = kernel.adapt(kernel.init(action.field.random(N_CHAINS, generator)), warm_up, generator)
    history, used = measured(tuned, state, action, seconds, generator)
    values, acceptance = history.measured["mean"], float(history.accepted.mean())
    mean, found = chain_mean(values), gauge_peers.effective(values)
    note = f"τ_int {found.tau}, acceptance {acceptance:.2f}, chains × steps {' × '.join(map(str, values.shape))}"
    return Row(method, found.n / used, used, mean.value, mean.error, note)


def measured(
    kernel: Kernel, state: State, action: Action, seconds: float, generator: torch.Generator
) -> tuple[History, float]:
    """A history of about as many seconds, and how many they were."""
    pilot, used = timed(lambda: run(kernel, state, 5, generator))
    n_steps = max(50, int(5 * seconds / used))
    return timed(lambda: run(kernel, pilot.state, n_steps, generator, observable(action)[1]))


def energies(seconds: float = LONG) -> tuple[dict[str, Any], str]:
    """References for spins without an exact solution: their energies by clusters and heat bath."""
    found = {}
    for name, case in manifold_cases.CASES.items():
        if quantities(case.action).exact().get("log Z") is None:
            found[name] = chains("clusters, heat bath", sampler_for(case.action), case.action, seconds)
    text = "\n".join(f"{name}: {row}" for name, row in found.items())
    return {"case": "manifold-energies", "rows": [{"of": name, **row._asdict()} for name, row in found.items()]}, text


# --------------------------------------------------------------------------------------------------- circular splines


def normflows_spline(x: Tensor, parameters: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """normflows' circular spline from one tensor of parameters like ours, the rotation left out: it has none."""
    widths, heights, slopes, _ = parameters.split((N_BINS, N_BINS, N_BINS, 1), -1)
    return unconstrained_rational_quadratic_spline(
        x, widths, heights, slopes, inverse=inverse, tails="circular", tail_bound=math.pi
    )


SPLINES = {"normflows": normflows_spline, "ours": circular_spline}


def points(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Pairs of angles, and random parameters for both."""
    generator = torch.Generator().manual_seed(0)
    x = 2 * math.pi * torch.rand(N_POINTS, 2, generator=generator, dtype=dtype) - math.pi
    return x, torch.randn(N_POINTS, 2, 3 * N_BINS + 1, generator=generator, dtype=dtype)


def coupling_flows(dtype: torch.dtype) -> dict[str, Bijection]:
    """Coupling splines on T² of as many hidden units, the identity at the start: normflows' with its residual network
    and a free spline of the other angle, as it comes, and ours.
    """
    action = manifold_cases.T2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [
            CircularCoupledRationalQuadraticSpline(
                2, 1, N_HIDDEN, [0, 1], num_bins=N_BINS, tail_bound=math.pi, reverse_mask=bool(k % 2)
            )
            for k in range(N_LAYERS)
        ]
        ours = TorusFlow(N_LAYERS, "coupling", "spline", N_BINS, hidden=(N_HIDDEN,)).build(action, dtype).bijection
    theirs = Chain(*(FromNormflows(layer.to(dtype), action.field) for layer in layers))
    return {"normflows": theirs, "ours": ours}


def perturbed(bijection: Bijection, size: float = 0.3) -> Bijection:
    """Away from the identity, the same for every map of as many parameters."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in bijection.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return bijection


def speed(dtype: torch.dtype, inverse: bool, n: int = 15) -> list[timing.Row]:
    """The spline alone and the flow of coupling layers, each beside normflows' own."""
    x, logits = (tensor.requires_grad_() for tensor in points(dtype))
    flows = {name: perturbed(flow) for name, flow in coupling_flows(dtype).items()}
    contests = {
        "spline": {
            name: timing.Contestant(partial(spline, x, logits, inverse), (x, logits))
            for name, spline in SPLINES.items()
        },
        "flow": {
            name: timing.Contestant(partial(flow.inverse if inverse else flow, x), (x, *flow.parameters()))
            for name, flow in flows.items()
        },
    }
    direction, name = "density" if inverse else "sampling", str(dtype).removeprefix("torch.")
    setting = {"mode": "eager", "dtype": name, "direction": direction}
    return [{"kind": kind, **setting, **row} for kind, both in contests.items() for row in timing.compare(both, n)]


@torch.no_grad()
def rounding(dtype: torch.dtype) -> dict[str, float]:
    """The largest |f⁻¹(f(x)) - x| on the circle, and the largest sum of the two log-slopes, of both splines."""
    errors, (x, logits) = {}, points(dtype)
    for name, spline in SPLINES.items():
        y, log_slope = spline(x, logits)
        back, opposite = spline(y, logits, inverse=True)
        errors[f"{name}, angles"] = float(wrap(back - x).abs().max())
        errors[f"{name}, log-slopes"] = float((log_slope + opposite).abs().max())
    return errors


def learning(n_steps: int = 1000, n: int = 100_000) -> Iterator[dict[str, Any]]:
    """Both flows of splines trained alike on three modes: their divergence, ESS and seconds."""
    action = manifold_cases.T2
    update = GradientUpdate(ReverseKL(path_gradient=False), learning_rate=0.01, batch_size=256)
    for name, bijection in coupling_flows(torch.float64).items():
        generator, start = torch.Generator().manual_seed(5), time.perf_counter()
        flow = Transformed(White(action.field), bijection)
        fit(Problem(flow, action), update, n_steps, generator=generator)
        seconds = time.perf_counter() - start
        samples, used = timed(lambda: reweight(flow, action, n, generator, chunk=N_POINTS))  # noqa: B023
        divergence, ess = kl(samples.log_weights, action.log_z()), samples.effective_sample_size(generator)
        yield {
            "map": name, "kl": divergence.value, "kl_error": divergence.error,
            "ess": ess.value, "ess_low": ess.low, "ess_high": ess.high, "n": n, "iterations": n_steps,
            "parameters": sum(p.numel() for p in bijection.parameters()), "seconds": seconds, "sample_seconds": used,
        }  # fmt: skip


def result() -> tuple[dict[str, Any], str]:
    """Speed, rounding and learning of circular splines, and their table."""
    torch.set_num_threads(1)
    found: list[timing.Row] = []
    for dtype in (torch.float32, torch.float64):
        for inverse in (False, True):
            print(f"{dtype}, {'density' if inverse else 'sampling'}", file=sys.stderr, flush=True)
            found += speed(dtype, inverse)
    errors = {str(dtype).removeprefix("torch."): rounding(dtype) for dtype in (torch.float32, torch.float64)}
    learnt = list(learning())
    parts = {"rows": found, "rounding": errors, "learning": learnt}
    return {"case": "manifold-peers", "hardware": timing.hardware(), **parts}, _table(found, errors, learnt)


def _table(found: list[timing.Row], errors: dict[str, dict[str, float]], learnt: list[dict[str, Any]]) -> str:
    lines = [f"{'':35}{timing.HEADER}"]
    lines += [f"{r['kind']:8}{r['dtype']:9}{r['direction']:9}{r['map']:9}{timing.line(r)}" for r in found]
    lines += [f"{dtype}, {what}: {error:.1e}" for dtype, own in errors.items() for what, error in own.items()]
    lines += [
        f"{r['map']:9} KL {r['kl']:.5f} ± {r['kl_error']:.5f}, ESS {r['ess']:.5f}"
        f" [{r['ess_low']:.5f}, {r['ess_high']:.5f}] at n = {r['n']}, {r['parameters']} parameters,"
        f" {r['iterations']} iterations in {r['seconds']:.0f} s, {r['sample_seconds']:.2f} s to sample"
        for r in learnt
    ]
    return "\n".join(lines)
