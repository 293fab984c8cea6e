"""How the cost of flows grows with the dimension: D = 1, 2, 3, 5, 8 for points on Sᴰ and Tᴰ.

Float64 on one thread, CPU seconds for 10⁴ samples with their log q, away from the identity. The exponents belong to
fits seconds ~ D^exponent over D ≥ 2. Harmonics up to a fixed degree grow in number as D^degree; everything else is made
of as many layers, components and hidden units at every D.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import timing
import torch
import volume
from manifold_peers import perturbed
from timing import Row

from flows.architectures.architecture import Architecture
from flows.architectures.harmonic import Harmonic
from flows.architectures.potential import PotentialFlow
from flows.architectures.sphere import SphereFlow
from flows.architectures.torus import TorusFlow
from flows.updates.update import Problem
from lattices.action import Action
from lattices.theories.sphere_mixture import SphereMixture
from lattices.theories.torus_mixture import TorusMixture

DIMENSIONS, N_SAMPLES, PER = (1, 2, 3, 5, 8), 2000, 10_000
FAMILIES: dict[str, Architecture] = {
    "S recursive": SphereFlow(),
    "S zonal": SphereFlow("zonal"),
    "S concave": PotentialFlow("concave", 3, 24),
    "S radial": PotentialFlow("radial", 3, 4),
    "S polynomial": PotentialFlow("polynomial", 3, 4),
    "S implicit": PotentialFlow("implicit", 3, 4, (4,)),
    "S harmonic": Harmonic(degree=2, n_times=2),
    "T autoregressive": TorusFlow(),
    "T coupling": TorusFlow(kind="coupling"),
    "T spline": TorusFlow(transform="spline", n_bins=8),
    "T harmonic": Harmonic(degree=1, n_times=2),
}


def target(manifold: str, dimension: int) -> Action:
    """A single mode on a sphere or torus."""
    if manifold == "T":
        return TorusMixture((1.0,) * dimension, dimension)
    return SphereMixture((1.0,) + (0.0,) * dimension, dimension, 2.0)


def jobs(dimension: int, n: int) -> Iterator[tuple[str, volume.Task]]:
    """Samples of every family that there is in D dimensions."""
    for name, architecture in FAMILIES.items():
        if "coupling" in name and dimension == 1:
            continue
        action = target(name[0], dimension)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            flow = architecture.build(action)
        perturbed(flow.bijection, 0.05)
        yield name, volume.sampling(Problem(flow, action), n)


def measure(
    dimensions: tuple[int, ...] = DIMENSIONS, n: int = 3, n_samples: int = N_SAMPLES, report: Callable = print
) -> list[Row]:
    """Median seconds of each family and dimension, in turns over all of them after a warm-up."""
    found = [(name, d, task) for d in dimensions for name, task in jobs(d, n_samples)]
    turns = []
    for turn in range(n + 1):
        report(f"turn {turn} of {n}")
        turns.append([volume.seconds(task) for _, _, task in found])
    times = torch.tensor(turns[1:], dtype=torch.float64).T * (PER / n_samples)
    return [_row(name, d, own) for (name, d, _), own in zip(found, times)]


def _row(name: str, dimension: int, times: torch.Tensor) -> Row:
    value, error = timing.median(times)
    return {"architecture": name, "dimension": dimension, "seconds": value, "error": error, "n": len(times)}


def exponents(rows: list[Row]) -> dict[str, float]:
    """The slope of log(seconds) against log D over D ≥ 2, by family."""
    slopes = {}
    for name in dict.fromkeys(row["architecture"] for row in rows):
        own = [row for row in rows if row["architecture"] == name and row["dimension"] > 1]
        if len(own) > 1:
            log_d, log_cost = (torch.tensor([math.log(row[k]) for row in own]) for k in ("dimension", "seconds"))
            centred = log_d - log_d.mean()
            slopes[name] = float(centred @ log_cost / (centred @ centred))
    return slopes


def table(rows: list[Row]) -> str:
    """One line per family: seconds for 10⁴ samples at each D, and the exponent."""
    dimensions, slopes = sorted({row["dimension"] for row in rows}), exponents(rows)
    lines = [f"{'s for 1e4 samples':18}" + "".join(f"{f'D = {d}':>10}" for d in dimensions) + f"{'exponent':>10}"]
    for name in dict.fromkeys(row["architecture"] for row in rows):
        own = {row["dimension"]: row["seconds"] for row in rows if row["architecture"] == name}
        columns = "".join(f"{own[d]:10.3f}" if d in own else f"{'':10}" for d in dimensions)
        lines.append(f"{name:18}{columns}" + (f"{slopes[name]:10.2f}" if name in slopes else ""))
    return "\n".join(lines)


def result() -> tuple[dict[str, Any], str]:
    """Everything measured, and its table."""
    torch.set_num_threads(1)
    rows = measure(report=lambda text: print(text, file=sys.stderr, flush=True))
    return {"case": "manifold-cost", "hardware": timing.hardware(), "rows": rows, "exponents": exponents(rows)}, table(
        rows
    )
