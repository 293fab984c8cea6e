"""`mlrg plot RUN`: draw all figures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from mlrg import figures
from mlrg.analysis import analyse
from mlrg.commands import cluster
from mlrg.commands.record import read_config, read_course, read_lessons
from mlrg.systems import system


@dataclass(frozen=True)
class Options:
    """Draw all figures of a run: the map of couplings, its monotone, exponents, convergence, matched densities.

    Args:
        run: a run directory, e.g. runs/ising.
        out: where figures go; by default RUN/figures.
    """

    run: tyro.conf.Positional[Path]
    out: Path | None = None


def main(arguments: Sequence[str]) -> None:
    """Draw, and say what was drawn."""
    options = tyro.cli(Options, args=list(arguments), prog="mlrg plot", description=Options.__doc__)
    folder = options.out or options.run / "figures"
    if cluster.is_cluster(read_config(options.run)):
        drawn = cluster.draw(options.run, folder)
    else:
        course = read_course(options.run)
        which, lessons = system(course.system), read_lessons(options.run, course)
        drawn = figures.draw(course, which, lessons, analyse(course, which, lessons), folder)
    print("\n".join(f"wrote {path}" for path in drawn))
