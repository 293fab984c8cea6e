"""`latflow sample RUN`: samples of a trained flow, exactly corrected, with everything needed to trust them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from flows import density_plots, parallel, plots, runs
from flows.commands.fit import load_points
from flows.commands.output import ensemble_path, save_samples
from flows.commands.parsing import parse, say
from flows.data import Points
from flows.quantities import DensityQuantities, mean, quantities
from flows.quantities.densities import is_density
from flows.report import Corrected, correct, exact_values
from flows.tables import Column, results, table
from flows.trained import MODELS, Trained, load
from lattices.files import Ensemble, write
from lattices.statistics import jackknife

LARGEST_SHARE = 0.05
"""Of all weight, in one sample, up to which error bars are believed."""

LARGEST_ENSEMBLE = 10**7
"""Numbers, of all fields together, up to which the fields are kept to draw one of them."""


@dataclass(frozen=True)
class Source:
    """Which trained flow.

    Args:
        run: a run directory, e.g. runs/phi4-8x8.
        pretrained: the name of a model that comes with the package, instead of a run.
        device: cpu, cuda, …
        seed: of the samples.
    """

    run: tyro.conf.Positional[Path | None] = None
    pretrained: str | None = None
    device: str = "cpu"
    seed: int = 1

    def load(self) -> Trained:
        """The flow, on its device."""
        if (self.run is None) == (self.pretrained is None):
            known = ", ".join(sorted(path.parent.name for path in MODELS.glob("*/config.json"))) or "none yet"
            raise ValueError(f"expected a run directory or --pretrained NAME ({known}), got neither or both: pass one")
        trained = load(self.run if self.run is not None else MODELS / str(self.pretrained))
        trained.flow.to(self.device)
        return trained


@dataclass(frozen=True)
class Options:
    """Draw samples of a trained flow and correct them exactly, by weights and by independence Metropolis.

    Args:
        source: which trained flow.
        n: number of samples.
        out: an .npz or .h5 to write: x, log_weights, and metropolis_indices, such that x[metropolis_indices] is a
            chain with the exact stationary distribution. `lattices.files.read` reads and checks it. Of densities
            fitted to points: x and log_prob.
        results: where to write results.json and figures; by default the run directory, nothing for pretrained models.
    """

    source: Annotated[Source, tyro.conf.arg(name="")]
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 10_000
    out: Path | None = None
    results: Path | None = None


def main(arguments: Sequence[str]) -> None:
    """Sample, correct, and print what was found."""
    options = parse(Options, arguments, "sample", Options.__doc__)
    if options.n < 2:
        raise ValueError(f"expected -n >= 2, got {options.n}: take more samples")
    out = options.out and ensemble_path(options.out)
    trained = options.source.load()
    generator = parallel.rank_generator(options.source.seed, "sampling", options.source.device)
    if isinstance(trained.action, Points):
        return _sample_fitted(trained, options, out, generator)
    keep = out is not None or options.n * math.prod(trained.action.field.event_shape) <= LARGEST_ENSEMBLE
    corrected = correct(trained.flow, trained.action, options.n, generator, keep)
    if parallel.rank() > 0:
        return
    columns, exact = corrected.columns(trained.action), exact_values(trained.action)
    say(f"{trained.action}\n\n{table(columns, exact)}\n\n{_verdict(corrected)}")
    directory = options.results or (None if options.source.run is None else trained.directory)
    if directory is not None:
        _write(directory, trained, corrected, columns)
        say(f"wrote {directory / 'results.json'} and {directory / 'figures'}")
    if out is not None:
        say(f"wrote {save_samples(out, corrected, trained.action)}")


def _verdict(corrected: Corrected) -> str:
    """How far the weights can be trusted."""
    ess = corrected.ess
    heavy = ess.max_weight > LARGEST_SHARE
    share = f"one sample carries {ess.max_weight:.0%} of all weight: do not trust the reweighted errors, train longer"
    return f"ESS {ess}" + (f"\n{share}" if heavy else "")


def _write(directory: Path, trained: Trained, corrected: Corrected, columns: list[Column]) -> None:
    further = {"n": corrected.ess.n, "ess": corrected.ess, "acceptance": corrected.chain.acceptance}
    runs.atomic_write_json(directory / "results.json", results(columns, **further))
    figures, log_weights = directory / "figures", corrected.samples.log_weights
    plots.log_weight_histogram(log_weights, columns[0].estimates["log Z"].value, figures / "log_weights.png")
    measured = {**corrected.samples.measured, "log_weights": log_weights}
    quantities(trained.action).draw(columns, measured, corrected.chain.indices, figures)
    if is_density(trained.action):
        density_plots.compare(trained.flow, trained.action, figures / "model.png")


def _sample_fitted(trained: Trained, options: Options, out: Path | None, generator: torch.Generator) -> None:
    """Samples of a density fitted to points: exact as they are, for there is nothing to correct them to."""
    n = -(-options.n // parallel.world_size())
    with torch.no_grad():
        x, log_prob = (parallel.gather(drawn) for drawn in trained.flow.sample_with_log_prob(n, generator=generator))
    if parallel.rank() > 0:
        return
    looked_at = DensityQuantities(trained.action)
    columns = [
        Column(name, dict(zip(looked_at.names, (mean(jackknife, row) for row in looked_at.moments(points).unbind(1)))))
        for name, points in (("model", x.cpu()), ("data", torch.cat(load_points(trained.directory))))
    ]
    say(f"{trained.action}\n\n{table(columns)}\n\nentropy of the model {mean(jackknife, -log_prob.double())}")
    if out is not None:
        say(f"wrote {write(out, Ensemble(trained.action.field, x.cpu(), {'log_prob': log_prob.cpu()}))}")
