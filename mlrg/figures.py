"""Which figures a run deserves, drawn from its lessons and results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lattices.statistics import Estimate
from mlrg import plots
from mlrg.analysis import QUANTITIES, critical_in
from mlrg.course import Course, learned_from
from mlrg.fixed_points import FixedPoint
from mlrg.learning import Learned
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
    learned = learned_from(course, which, lessons)
    moderator = learned.moderator
    extent, tag = lessons[0].extent // 2, f"{lessons[0].extent // 2}-{common}"
    title = f"{which.name}: {2 * extent} → {extent}, compared on {common}²"
    critical = _critical(course, which, learned, lessons)
    atlas = plots.Atlas(moderator, which.space, critical, lessons, title)
    draw_map = plots.coupling_map if len(which.space.names) == 1 else plots.flow_diagram
    drawn = [draw_map(atlas, folder / f"map-{tag}.png")] if len(which.space.names) <= 2 else []
    if isinstance(moderator, GradientFlow) and len(which.space.names) <= 2:
        drawn.append(plots.monotone_landscape(atlas, folder / f"monotone-{tag}.png"))
    nearest = critical.couplings if critical else which.lessons.centre
    distances = [float(((lesson.couplings - nearest) / which.space.scale).norm()) for lesson in lessons]
    panel = _densities(lessons[distances.index(min(distances))])
    if panel is not None:
        drawn.append(plots.matched_densities([panel], title, folder / f"densities-{tag}.png"))
    return drawn


def _critical(course: Course, which: System, learned: Learned, lessons: list[Lesson]) -> FixedPoint | None:
    try:
        return critical_in(course, which, learned, lessons)[1]
    except ValueError:
        return None


def _densities(lesson: Lesson) -> plots.Densities | None:
    """The match of one lesson; None for lessons that kept no samples."""
    if not lesson.matched.numel():
        return None
    curve = (lesson.curve[0], lesson.curve[1]) if lesson.curve.numel() else None
    teacher, teacher_weights, student, student_weights = lesson.matched
    return plots.Densities("total block field", teacher, teacher_weights, student, student_weights, curve)


def _series(results: Mapping[str, Any], name: str) -> tuple[list[Series], Estimate | None, float | None]:
    pairs = [pair for pair in results["pairs"] if name in pair]
    rows = []
    for common in sorted({pair["common"] for pair in pairs}):
        extents, estimates = zip(*((pair["student"], pair[name]) for pair in pairs if pair["common"] == common))
        rows.append(Series(common, extents, estimates))
    found = answer(results, name)
    return rows, found[0] if found else None, found[1] if found else None
