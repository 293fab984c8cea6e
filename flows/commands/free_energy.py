"""`latflow free-energy RUN`: log Z from the flow's samples, from samples of the target, and from both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from flows import parallel, runs
from flows.commands.parsing import parse, say
from flows.commands.sample import Source
from flows.data import Points
from flows.distribution import Distribution
from flows.free_energy import bar, bounds, log_z
from flows.report import Corrected, HMCRun, correct, exact_values
from flows.sampling.exact_gauge import ExactPlane
from flows.tables import Column, table
from flows.trained import Trained
from lattices.action import Action
from lattices.statistics import Estimate
from lattices.theories.ising_dual import IsingDual
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge


@dataclass(frozen=True)
class Options:
    """log Z = -F of the target, from one side, from both, and between bounds.

    Args:
        source: which trained flow.
        n: number of samples of the flow.
        hmc: how the target itself is sampled.
        every: trajectories between two configurations that the flow is asked about.
    """

    source: Annotated[Source, tyro.conf.arg(name="")]
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 10_000
    hmc: HMCRun = field(default_factory=lambda: HMCRun(n_chains=64, n_steps=200))
    every: int = 4


def main(arguments: Sequence[str]) -> None:
    """Estimate, and compare with what is known."""
    options = parse(Options, arguments, "free-energy", Options.__doc__)
    if options.n < 2 or options.every < 1:
        raise ValueError(f"expected -n >= 2 and --every >= 1, got {options.n} and {options.every}: raise them")
    trained = options.source.load()
    if isinstance(trained.action, Points):
        raise ValueError(f"expected the target of a theory, got a density known by its points, {options.source.run}")
    generator = parallel.rank_generator(options.source.seed, "free energy", options.source.device)
    corrected, forward = both_sides(trained, options.n, options.hmc, options.every, generator)
    if parallel.rank() > 0:
        return
    estimates = free_energies(corrected, forward, trained.action)
    exact = exact_values(trained.action)
    rows = table([Column("estimate", estimates)], _spread(exact, estimates))
    say(f"{trained.action}\n\n{rows}\n\nESS {corrected.ess}")
    if options.source.run is not None:
        path = Path(trained.directory) / "free_energy.json"
        runs.atomic_write_json(path, {"estimates": estimates, "exact": exact, "ess": corrected.ess})
        say(f"wrote {path}")


def both_sides(
    trained: Trained, n: int, hmc: HMCRun, every: int, generator: torch.Generator
) -> tuple[Corrected, Tensor]:
    """n corrected samples of the flow, and log w at samples of the target (n_chains, n_kept).

    Chains of solved gauge theories start from exact samples, for they would not find the weights of the sectors.
    """
    corrected = correct(trained.flow, trained.action, n, generator)
    _, history = hmc.run(trained.action, generator, keep=True, start=_solved(trained.action, hmc.n_chains, generator))
    return corrected, log_weights_at(trained.flow, trained.action, history.measured["x"][:, ::every])


def _solved(action: Action, n: int, generator: torch.Generator) -> Tensor | None:  # -> (n, *event)
    """Exact samples of Wilson's action in the plane, None of others."""
    if not isinstance(action, U1Gauge | SUNGauge) or len(action.extents) != 2 or action.rectangle:
        return None
    return ExactPlane(action).to(generator.device).sample(n, generator=generator)


@torch.no_grad()
def log_weights_at(flow: Distribution, action: Action, x: Tensor) -> Tensor:  # (chains, steps, *event)
    """log w = -S - log q at given configurations, float64.  -> (chains, steps)"""
    chunks = x.flatten(0, 1).split(max(64, 2**17 // action.field.lattice.volume))
    values = [-action.energy(part).double() - flow.log_prob(part).double() for part in chunks]
    return torch.cat(values).reshape(x.shape[:2])


def free_energies(corrected: Corrected, forward: Tensor, action: Action) -> dict[str, Estimate]:
    """The rows of the table: log Z in several ways; the bounds bracket it, the others agree with it."""
    backward = corrected.samples.log_weights
    bracket = bounds(backward, forward)
    found = {
        "log Z, flow samples": log_z(backward),
        "log Z, target samples": _reverse(forward),
        "log Z, both (BAR)": bar(backward, forward),
        "lower bound (ELBO)": bracket.lower,
        "upper bound (EUBO)": bracket.upper,
    }
    if isinstance(action, IsingDual):
        both = found["log Z, both (BAR)"]
        found["log Z (Ising), both"] = Estimate(float(action.log_z_ising(both.value)), both.error, both.n)
    return found


def _reverse(forward: Tensor) -> Estimate:
    """log Z = -log ⟨1/w⟩ at samples of the target."""
    inverse = log_z(-forward)
    return Estimate(-inverse.value, inverse.error, inverse.n)


def _spread(exact: dict[str, float], rows: dict[str, Estimate]) -> dict[str, float]:
    """The exact log Z beside each of its estimates; bounds are no estimates."""
    known = {"log Z (Ising)": exact.get("log Z (Ising)"), "log Z,": exact.get("log Z")}
    pairs = ((row, value) for row in rows for key, value in known.items() if row.startswith(key) and value is not None)
    return dict(pairs)
