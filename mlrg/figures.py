"""Which figures a run deserves, drawn from its lessons and results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lattices.statistics import Estimate
from mlrg import plots
from mlrg.analysis import QUANTITIES
from mlrg.course import Course, learned_from
from mlrg.fixed_points import FixedPoint, critical_point
from mlrg.learning import Fitted
from mlrg.lessons import Lesson
from mlrg.moderator import GradientFlow
from mlrg.scaling import Series
from mlrg.systems import System

SYMBOLS = {"critical_coupling": "$K_c$", "y_t": "$y_t$", "nu": "ν", "delta_sigma": "Δσ", "y_h": "$y_h$"}


def draw(
    course: Course,
    which: System,
    lessons: Mapping[tuple[int, int], list[Lesson]],
    results: Mapping[str, Any],
    folder: Path,
) -> list[Path]:
    """Every figure of a run: the map of each pair of lattices, its monotone, the answers, how they settle."""
    drawn = [
        path for (extent, common), own in lessons.items() if own for path in _maps(course, which, common, own, folder)
    ]
    rows = {SYMBOLS[name]: row for name in QUANTITIES if (row := answer(results, name)) is not None}
    if rows:
        drawn.append(plots.estimates(rows, f"{which.name}: answers and what is known", folder / "exponents.png"))
    settled = {SYMBOLS[name]: _series(results, name) for name in QUANTITIES if name != "nu"}
    settled = {name: found for name, found in settled.items() if found[0]}
    if settled:
        title = f"{which.name}: convergence with the number of blockings"
        drawn.append(plots.convergence(settled, title, folder / "convergence.png"))
    return drawn


def answer(results: Mapping[str, Any], name: str) -> plots.Row | None:
    """One answer with its full error, and its reference; None if there is none."""
    found = results[name]
    if found["value"] is None:
        return None
    return Estimate(found["value"], found["error"], 1), found.get("reference")


def _maps(course: Course, which: System, common: int, lessons: list[Lesson], folder: Path) -> list[Path]:
    moderator = learned_from(course, which, lessons).moderator
    extent, tag = lessons[0].extent // 2, f"{lessons[0].extent // 2}-{common}"
    title = f"{which.name}: {2 * extent} → {extent}, compared on {common}²"
    critical = _critical(course, which, moderator)
    atlas = plots.Atlas(moderator, which.space, critical, lessons, title)
    draw_map = plots.coupling_map if len(which.space.names) == 1 else plots.flow_diagram
    drawn = [draw_map(atlas, folder / f"map-{tag}.png")] if len(which.space.names) <= 2 else []
    if isinstance(moderator, GradientFlow) and len(which.space.names) <= 2:
        drawn.append(plots.monotone_landscape(atlas, folder / f"monotone-{tag}.png"))
    return drawn


def _critical(course: Course, which: System, moderator: Fitted) -> FixedPoint | None:
    try:
        return critical_point(moderator, which.lessons, torch.Generator().manual_seed(course.seed + 2))
    except ValueError:
        return None


def _series(results: Mapping[str, Any], name: str) -> tuple[list[Series], Estimate | None, float | None]:
    pairs = [pair for pair in results["pairs"] if name in pair]
    rows = []
    for common in sorted({pair["common"] for pair in pairs}):
        extents, estimates = zip(*((pair["student"], pair[name]) for pair in pairs if pair["common"] == common))
        rows.append(Series(common, extents, estimates))
    found = answer(results, name)
    return rows, found[0] if found else None, found[1] if found else None
