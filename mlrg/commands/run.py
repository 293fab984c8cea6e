"""`mlrg run SYSTEM`: teach lessons, learn the map of couplings, read off what it says, leave a run directory behind."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from flows import runs
from mlrg.commands import cluster
from mlrg.commands.record import finish
from mlrg.commands.teachers import Teachers
from mlrg.course import Course, run_course
from mlrg.systems import system, systems

FLAT = tyro.conf.arg(name="")
DESCRIPTION = "Learn the renormalization group of a system and read critical couplings and exponents off it."
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Place:
    """Where the run lives, and whose flows it learns from.

    Args:
        directory: of the run; by default runs/SYSTEM. The same command continues what it finds there.
        pretrained: insist on the teachers that come with the package.
        train: train the teachers here, even if there are some that come with the package.
        train_steps: updates of each teacher that is trained.
    """

    directory: Path | None = None
    pretrained: Flag = False
    train: Flag = False
    train_steps: int = 12

    def __post_init__(self) -> None:
        if self.pretrained and self.train:
            raise ValueError("expected --pretrained or --train, got both: choose one, or none for what there is")
        if self.train_steps < 1:
            raise ValueError(f"expected --train-steps >= 1, got {self.train_steps}: raise it")


def main(arguments: Sequence[str]) -> None:
    """`SYSTEM --options`: run a course, or the one-plaquette model."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        raise SystemExit(0)
    if name == "cluster":
        return cluster.main(rest)
    which = system(name)
    options: Any = tyro.cli(_options(name), args=rest, prog=f"mlrg run {name}", description=DESCRIPTION)
    course = Course(name, **{f.name: getattr(options.course, f.name) for f in fields(options.course)})
    directory = options.place.directory or Path("runs") / name
    teachers = Teachers(which, course, directory, options.place)
    lessons = run_course(course, teachers, directory, which, print)
    runs.write_environment(directory, course.seed, "cpu")
    finish(directory, course, which, lessons)


def _options(name: str) -> type:
    """`Course` without its system, which is an argument of its own, and `Place`, all flat."""
    hints = get_type_hints(Course)
    own: list[Any] = [(f.name, hints[f.name], f.default) for f in fields(Course) if f.name != "system"]
    if any(default is MISSING for _, _, default in own):
        raise TypeError("expected a default for every field of Course: give it one")
    course = make_dataclass("CourseOptions", own, namespace={"__doc__": inspect.getdoc(Course)}, frozen=True)
    parts: list[Any] = [("course", Annotated[course, FLAT], course()), ("place", Annotated[Place, FLAT], Place())]
    return make_dataclass("Options", parts)


def _help() -> str:
    lines = [f"  {name:<16} couplings {', '.join(found.space.names)}" for name, found in systems().items()]
    lines.append(f"  {'cluster':<16} the one-plaquette model, all sums exact")
    heading = f"usage: mlrg run SYSTEM [options]\n\n{DESCRIPTION}\n\nsystems:"
    return "\n".join([heading, *lines, "", "`mlrg run SYSTEM --help` lists the options."])
