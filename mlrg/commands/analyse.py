"""`mlrg analyse RUN`: read everything off the lessons of a run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from mlrg.commands import cluster
from mlrg.commands.record import finish, read_config, read_course, read_lessons
from mlrg.systems import system


@dataclass(frozen=True)
class Options:
    """Learn the moderators from the lessons of a run, print the tables and write results.json and figures anew.

    Args:
        run: a run directory, e.g. runs/ising.
    """

    run: tyro.conf.Positional[Path]


def main(arguments: Sequence[str]) -> None:
    """Analyse a run, finished or not."""
    directory = tyro.cli(Options, args=list(arguments), prog="mlrg analyse", description=Options.__doc__).run
    if cluster.is_cluster(read_config(directory)):
        return cluster.again(directory)
    course = read_course(directory)
    finish(directory, course, system(course.system), read_lessons(directory, course))
