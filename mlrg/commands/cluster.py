"""`mlrg run cluster`: the one-plaquette model, solved exactly or learned."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from flows import runs
from lattices.statistics import Estimate
from mlrg import plots
from mlrg.cluster.plaquette import plaquette
from mlrg.cluster.results import analyse
from mlrg.cluster.step import ExactStep
from mlrg.commands.record import read_config
from mlrg.commands.tables import aligned

ROWS = {"critical_coupling": "J*/2", "y_t": "y_t", "nu": "ν", "delta_sigma": "Δσ"}


@dataclass(frozen=True)
class Cluster:
    """The one-plaquette model: G-spins with a point-group representation on every site, all sums exact.

    Args:
        group: of the spins: S2, Z3 or S3.
        representation: a sum of irreps of D4, e.g. A1, A1+E, 2A1+E.
        environment: 0 for the plain step, or "scale-invariant".
        branch: how the names of hidden spins are fixed: covariant or free.
        width: plaquettes around the cylinder that Δσ is read on.
        seeds: none for the exact step, or one learned moderator for each.
    """

    group: str = "S2"
    representation: str = "A1"
    environment: float | Literal["scale-invariant"] = 0.0
    branch: str = "covariant"
    width: int = 2
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Options:
    """The one-plaquette model: G-spins with a point-group representation on every site, all sums exact.

    Args:
        model: which one.
        directory: of the run; by default runs/cluster-GROUP-REPRESENTATION.
    """

    model: Annotated[Cluster, tyro.conf.arg(name="")]
    directory: Path | None = None


def main(arguments: Sequence[str]) -> None:
    """Solve or learn, print, write results.json, draw."""
    options = tyro.cli(Options, args=list(arguments), prog="mlrg run cluster", description=Options.__doc__)
    model = options.model
    _finish(model, options.directory or Path("runs") / f"cluster-{model.group}-{model.representation}")


def is_cluster(config: Mapping[str, Any]) -> bool:
    """Whether a config.json belongs to this model."""
    return config.get("type") == Cluster.__name__


def again(directory: Path) -> None:
    """Repeat the run of a directory."""
    _finish(_model(directory), directory)


def draw(directory: Path, folder: Path) -> list[Path]:
    """J'(J) along the first coupling through the fixed point, and the numbers against the exact ones."""
    model, path = _model(directory), directory / "results.json"
    if not path.is_file():
        raise ValueError(f"expected results.json in {directory}, got none: run mlrg analyse {directory}")
    results = _read(path)
    star = torch.tensor(results["couplings"], dtype=torch.float64)
    step = ExactStep(plaquette(model.group, model.representation), results["environment"], model.branch)
    curve = torch.linspace(0.6, 1.4, 17, dtype=torch.float64)[:, None] * star
    images = torch.stack([step(J) for J in curve])
    title = f"One plaquette, {model.representation} of {model.group}"
    first = plots.curve_with_diagonal(curve[:, 0], images[:, 0], float(star[0]), title, folder / "map.png")
    return [first, plots.estimates(_estimates(results), f"{title}: against the exact values", folder / "exponents.png")]


def _read(path: Path) -> dict[str, Any]:
    """The "results" of a results.json, null read as nan."""
    found = json.loads(path.read_text())["results"]
    return {key: math.nan if value is None else value for key, value in found.items()}


def _finish(model: Cluster, directory: Path) -> None:
    found = analyse(**asdict(model))
    runs.atomic_write_json(directory / "config.json", model)
    runs.atomic_write_json(directory / "results.json", {"system": "cluster", "model": model, "results": found})
    results = _read(directory / "results.json")
    lines = [_line(ROWS[name], *row) for name, row in zip(ROWS, _estimates(results).values())]
    table = aligned([["", "value", "reference", "off by"], *lines])
    print(f"one plaquette, {model.representation} of {model.group}\n\n{table}\n")
    print(f"residual KL {results['residual_kl']:.3e} nats per plaquette, environment {results['environment']:.6g}")
    draw(directory, directory / "figures")
    print(f"wrote {directory / 'results.json'} and {directory / 'figures'}")


def _model(directory: Path) -> Cluster:
    config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in read_config(directory).items()}
    config.pop("type", None)
    return Cluster(**config)


def _estimates(results: Mapping[str, Any]) -> dict[str, tuple[Estimate, float | None]]:
    rows = {}
    for name, symbol in ROWS.items():
        error, reference = results[f"{name}_error"], results[f"{name}_reference"]
        estimate = Estimate(results[name], 0.0 if math.isnan(error) else error, 1)
        rows[symbol] = (estimate, None if math.isnan(reference) else reference)
    return rows


def _line(symbol: str, estimate: Estimate, reference: float | None) -> list[str]:
    value = f"{estimate.value:.8f}" if estimate.error == 0 else str(estimate)
    if reference is None:
        return [symbol, value, "–", ""]
    return [symbol, value, f"{reference:.8f}", f"{estimate.value / reference - 1:+.3%}"]
