"""What a run leaves behind, read and written: config.json, lessons/*.pt, results.json, figures/*.png."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from flows import runs
from mlrg import figures
from mlrg.analysis import analyse
from mlrg.commands.tables import answer_table, pair_table
from mlrg.course import Course
from mlrg.lessons import Lesson
from mlrg.systems import System

Lessons = dict[tuple[int, int], list[Lesson]]
"""By extent of the student and of the common lattice."""


def read_config(directory: Path) -> dict[str, Any]:
    """config.json of a run; a ValueError if there is none."""
    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(f"expected a run directory with a config.json, got {str(directory)!r}: see mlrg run --help")
    try:
        return dict(json.loads(path.read_text()))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected JSON in {path}, got {error}: run again in a new directory") from error


def read_course(directory: Path) -> Course:
    """The course that a directory belongs to."""
    config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in read_config(directory).items()}
    config.pop("type", None)
    try:
        return Course(**config)
    except TypeError as error:
        raise ValueError(f"expected the config.json of a course in {directory}, got other keys: {error}") from error


def read_lessons(directory: Path, course: Course) -> Lessons:
    """All finished lessons; damaged files are passed over with a warning, and no lessons at all are a ValueError."""
    lessons: Lessons = {(extent, common): [] for extent in course.extents for common in course.common}
    for (extent, common), own in lessons.items():
        for k in range(course.n_lessons + course.n_proposed):
            path = directory / "lessons" / f"{extent}-{common}-{k}.pt"
            lesson = _read(path) if path.is_file() else None
            own += [lesson] if lesson is not None else []
    found = {key: own for key, own in lessons.items() if own}
    if not found:
        raise ValueError(f"expected lessons in {directory / 'lessons'}, got none: run the course first")
    return found


def finish(directory: Path, course: Course, which: System, lessons: Lessons) -> dict[str, Any]:
    """Analyse, print the tables, write results.json, draw the figures."""
    results = analyse(course, which, lessons)
    runs.atomic_write_json(directory / "results.json", results)
    print(f"\n{pair_table(results, which)}\n\n{answer_table(results)}\n")
    figures.draw(course, which, lessons, results, directory / "figures")
    print(f"wrote {directory / 'results.json'} and {directory / 'figures'}")
    return results


def _read(path: Path) -> Lesson | None:
    try:
        return Lesson(**torch.load(path, weights_only=True))
    except (RuntimeError, TypeError, EOFError, OSError, ValueError, pickle.UnpicklingError):
        warnings.warn(f"{path} is damaged and was left out; the same `mlrg run` teaches it again", stacklevel=2)
        return None
