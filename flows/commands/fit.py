"""`latflow fit sphere|torus FILE`: a density for observed points, by maximum likelihood, judged by points held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from flows import density_plots, parallel, runs
from flows.architectures.architecture import Architecture
from flows.commands.command_line import recipe_of_kind
from flows.commands.parsing import FLAT, parse, say
from flows.commands.train import choice, open_run
from flows.configuration import Configuration, recipes
from flows.data import MANIFOLDS, EarlyStopping, Points, log_likelihood, read_points
from flows.tables import CONVENTIONS
from flows.trained import load
from flows.training import Settings, fit
from flows.updates.likelihood import MaximumLikelihood
from flows.updates.update import Problem
from lattices.statistics import Estimate

DESCRIPTION = """Fit a density to points on a sphere or a torus, by maximum likelihood.

latflow fit sphere FILE: unit vectors, rows of D + 1 numbers; latflow fit torus FILE: angles, rows of D numbers.
FILE is text, .npy, or .npz with an array x."""


@dataclass(frozen=True)
class Fitting:
    """The points, and how long, how, and where to.

    Args:
        file: the points, one in each row: text, .npy, or .npz with an array x.
        degrees: the angles are in degrees.
        project: bring every point to the manifold: wrap angles, divide vectors by their length.
        symmetry: to build in: on a sphere axis or antipodal, on a torus reflection.
        held_out: share of the points, drawn at random, that judges and is never learned from.
        n_steps: the most updates.
        patience: updates without a better likelihood of the points held out after which the fit ends.
        seed: of the split, the initial parameters and all samples.
        dtype: precision of the fit; results are quoted in float64 in any case.
        name: of the run; by default that of the file.
        runs: the directory that holds runs.
        resume: continue the run of that name where it was stopped.
        device: cpu, cuda, …
        update: Fisher scoring.
    """

    file: tyro.conf.Positional[Path]
    degrees: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    project: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    symmetry: Literal["none", "axis", "antipodal", "reflection"] = "none"
    held_out: float = 0.2
    n_steps: int = 60
    patience: int = 5
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float64"
    name: str | None = None
    runs: Path = Path("runs")
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    device: str = "cpu"
    update: MaximumLikelihood = field(default_factory=MaximumLikelihood)


def main(arguments: Sequence[str]) -> None:
    """Read, check and split the points, fit a flow, and say how likely it makes the points held out."""
    manifold, *words = list(arguments) or ["--help"]
    if manifold in ("-h", "--help"):
        say(f"usage: latflow fit {{{'|'.join(MANIFOLDS)}}} FILE [options]\n\n{DESCRIPTION}")
        raise SystemExit(0)
    if manifold not in MANIFOLDS:
        raise ValueError(f"expected {' or '.join(MANIFOLDS)}, got {manifold!r}: see latflow fit --help")
    known = recipes(Architecture)
    recipe = choice(words, "architecture", known, recipe_of_kind(manifold))
    architecture = (Annotated[recipe, tyro.conf.arg(name="architecture")], recipe())
    parts: list[Any] = [("fitting", Annotated[Fitting, FLAT]), ("architecture", *architecture)]
    options: Any = parse(make_dataclass("Options", parts), words, f"fit {manifold}", DESCRIPTION)
    fit_points(manifold, options.architecture, options.fitting)


def fit_points(manifold: str, architecture: Architecture, fitting: Fitting) -> Path:
    """Fit the points of a file, and return the run directory."""
    points = _points(manifold, fitting)
    configuration = Configuration(points, architecture, fitting.update, fitting.n_steps, fitting.seed, fitting.dtype)
    directory = fitting.runs / (fitting.name or fitting.file.stem)
    flow = configuration.build().flow.to(fitting.device)
    parallel.from_main(lambda: open_run(directory, configuration, fitting.resume, fitting.device))
    parallel.from_main(lambda: _keep(directory, points))
    training, held_out = (x.to(fitting.device, getattr(torch, fitting.dtype)) for x in points.observed())
    n_parameters = sum(p.numel() for p in flow.parameters() if p.requires_grad)
    say(f"fitting {n_parameters} parameters to {len(training)} points of {len(training) + len(held_out)}")
    stopping = EarlyStopping(flow, held_out, fitting.patience, keep=partial(_save, directory))
    _recall(stopping, directory)
    generator = torch.Generator(fitting.device).manual_seed(configuration.seed)
    problem = Problem(flow, replace(points, training=training, held_out=held_out))
    settings = Settings(directory, checkpoint_every=5, resume=fitting.resume)
    found = fit(
        problem, configuration.update, configuration.n_steps, generator=generator, settings=settings, callback=stopping
    )
    stopping.restore()
    if parallel.rank() == 0:
        _finish(directory, found.history)
    return directory


def _points(manifold: str, fitting: Fitting) -> Points:
    """The points of the file, split at random."""
    x = read_points(fitting.file, manifold, fitting.degrees, fitting.project)
    order = torch.Generator().manual_seed(fitting.seed)
    return replace(Points.split(manifold, x, fitting.held_out, order, fitting.symmetry), file=str(fitting.file))


def _keep(directory: Path, points: Points) -> None:
    """The points, split as they were, beside the run: it can be judged again without the file."""
    training, held_out = points.observed()
    np.savez(directory / "points.npz", training=training.cpu().numpy(), held_out=held_out.cpu().numpy())


def _recall(stopping: EarlyStopping, directory: Path) -> None:
    """The best flow of a fit that is resumed."""
    if (directory / "weights.pt").is_file():
        state = torch.load(directory / "weights.pt", weights_only=True, map_location="cpu")
        stopping.flow.load_state_dict(state)
        stopping({})


def _save(directory: Path, state: dict[str, torch.Tensor]) -> None:
    """The best flow so far, beside the checkpoints of the last one."""
    if parallel.rank() == 0:
        content = BytesIO()
        torch.save({name: tensor.cpu() for name, tensor in state.items()}, content)
        runs.atomic_write(directory / "weights.pt", content.getvalue())


def _finish(directory: Path, history: list[dict[str, Any]]) -> None:
    """Write results and figures of the best flow, and say how good it is."""
    trained, (training, held_out) = load(directory), load_points(directory)
    judged = {"training": log_likelihood(trained.flow, training), "held out": log_likelihood(trained.flow, held_out)}
    uniform = float(trained.flow.base.log_prob(held_out[:1]))
    better = Estimate(judged["held out"].value - uniform, judged["held out"].error, judged["held out"].n)
    found = {"log_likelihood": judged, "above_uniform": better, "uniform": uniform, "steps": len(history)}
    runs.atomic_write_json(directory / "results.json", {"conventions": CONVENTIONS, **found})
    density_plots.likelihoods(history, directory / "figures" / "training.png")
    density_plots.fitted(trained.flow, torch.cat([training, held_out]), directory / "figures" / "density.png")
    say(f"{len(history)} updates; mean log-likelihood of a point, in nats:")
    for name, estimate in judged.items():
        say(f"  {name:<10} {estimate}  (n = {estimate.n})")
    say(f"  the uniform density has {uniform:.4f}: the points held out gain {better}")
    say(f"wrote {directory}; next: latflow sample {directory} -n 10000 --out samples.npz")


def load_points(directory: Path) -> tuple[torch.Tensor, torch.Tensor]:  # -> (n, *event), (m, *event)
    """The points of a fitted run: those learned from, and those held out."""
    with np.load(directory / "points.npz") as found:
        return torch.as_tensor(found["training"]), torch.as_tensor(found["held_out"])
