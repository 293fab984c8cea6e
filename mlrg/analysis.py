"""Results of a course: every number with its error, for each pair of lattices, and the answer for the infinite one."""

from __future__ import annotations

from typing import Any

import torch

from lattices.statistics import Estimate
from mlrg.couplings import CouplingSpace
from mlrg.course import Course, around, learned_from, region
from mlrg.exponents import Exponents, exponents
from mlrg.fixed_points import FixedPoint, critical_point, newton
from mlrg.learning import Learned
from mlrg.lessons import Lesson
from mlrg.phases import critical_couplings, flow_line
from mlrg.scaling import Series, infinite_volume
from mlrg.systems import System

QUANTITIES = ("critical_coupling", "y_t", "nu", "delta_sigma", "y_h")


def analyse(course: Course, which: System, lessons: dict[tuple[int, int], list[Lesson]]) -> dict[str, Any]:
    """Everything that is read off, as plain JSON: `pairs`, one for each (student, common lattice), and the answers.

    Each answer has value, error (statistical and systematic in quadrature), statistical, systematic, and reference
    where one is known.
    """
    pairs = [pair_results(course, which, extent, common, own) for (extent, common), own in lessons.items()]
    answers = {name: _answer(name, which, pairs) for name in QUANTITIES}
    return {"system": which.name, "course": course, "pairs": pairs, **answers}


def pair_results(course: Course, which: System, extent: int, common: int, lessons: list[Lesson]) -> dict[str, Any]:
    """What one series of lessons says; `problem` tells why there is no critical point if there is none."""
    head: dict[str, Any] = {"teacher": 2 * extent, "student": extent, "common": common, "n_lessons": len(lessons)}
    head |= {"residual_kl": [lesson.residual.tolist() for lesson in lessons], "ess": []}
    try:
        learned = learned_from(course, which, lessons)
        head["ess"] = torch.stack([lesson.ess for lesson in lessons]).min(0).values.tolist()
        head["excess_kl"] = learned.loss
        taken, point = critical_in(course, which, learned, lessons)
        found = exponents(learned, point, len(which.family.field.lattice.extents))
        crossing = found.couplings[0] if len(taken.names) == 1 else critical_surface(learned, which, point)
    except ValueError as problem:
        return {**head, "problem": str(problem)}
    return {**head, **_plain(which, point, found), "critical_coupling": crossing, **_monotone(learned, which, point)}


def critical_in(
    course: Course, which: System, learned: Learned, lessons: list[Lesson]
) -> tuple[CouplingSpace, FixedPoint]:
    """The box of the lessons, and the critical point in it or within half its width around."""
    taken, generator = region(which, lessons), torch.Generator().manual_seed(course.seed + 2)
    return taken, critical_point(learned.moderator, around(taken, taken.centre, 1.5), generator)


def critical_surface(learned: Learned, which: System, point: FixedPoint) -> Estimate:
    """Where the system's segment crosses the critical surface: the first coupling that differs between its ends."""
    low, high = which.segment
    axis = int((high - low).abs().argmax())
    points = [point, *(newton(replica, point.couplings) or point for replica in learned.replicas)]
    rows = critical_couplings(learned, which.space, points, (low, high))[:, axis]
    low_q, high_q = (float(torch.quantile(rows[1:], q)) for q in (0.1587, 0.8413))
    return Estimate(float(rows[0]), (high_q - low_q) / 2, len(rows) - 1)


def _plain(which: System, point: FixedPoint, found: Exponents) -> dict[str, Any]:
    return {
        "fixed_point": dict(zip(which.space.names, found.couplings)),
        "y_t": found.y_t, "nu": found.nu, "delta_sigma": found.delta_sigma, "y_h": found.y_h,
        "irrelevant": list(found.irrelevant),
        "stability": point.stability.tolist(),
    }  # fmt: skip


def _monotone(learned: Learned, which: System, point: FixedPoint) -> dict[str, Any]:
    """The largest rise of C along the flow lines that leave the critical point on both sides, if there is a C."""
    if not hasattr(learned.moderator, "monotone"):
        return {}
    starts = [point.couplings + side * 0.05 * which.lessons.scale for side in (-1, 1)]
    lines = [flow_line(learned.moderator, which.space, start) for start in starts]
    rises = [float(line.monotone(learned.moderator).diff().max()) for line in lines if len(line.couplings) > 1]
    return {"monotone_largest_rise": max(rises)}


def _answer(name: str, which: System, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    series = [
        Series(common, *zip(*((p["student"], p[name]) for p in pairs if p["common"] == common and name in p)))
        for common in sorted({p["common"] for p in pairs if name in p})
    ]
    if not series:
        return {"value": None, "reason": "no critical point was found", "reference": which.references.get(name)}
    shift = which.references.get("y_t", 1.0) if name == "critical_coupling" else 0.0
    answer = infinite_volume(series, which.correction, shift)
    return {**answer, "reference": which.references.get(name)}
