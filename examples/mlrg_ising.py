"""Where is the critical point of the Ising model, and what are its exponents, from a learned renormalization group?

Teacher fields on 2L×2L sites and student fields on L×L are blocked to one number each; the student's couplings K' and
the field scale ζ are matched, a moderator learns the map K' = M(K), and everything is read off its fixed point. The
student's likelihood is a conditional flow with an exact marginal; it makes matching sharp and cannot bias it.
Exact: K_c = ½ log(1 + √2) = 0.440687, ν = 1/y_t = 1, Δσ = 1/8, y_h = 15/8 (Onsager 1944, Yang 1952).
Answer with 20 000 fields (`python benchmarks/mlrg.py ising --pretrained`): 0.44049(30), 1.008(20), 0.1284(38).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from flows.updates.natural import NaturalGradient
from mlrg import figures, pretrained
from mlrg.analysis import QUANTITIES, analyse
from mlrg.course import Course, run_course
from mlrg.systems import system
from mlrg.teacher import Recipe, Teacher, train

ISING = system("ising")
COURSE = Course("ising", extents=(8, 16), common=(1,), n_lessons=5, n_samples=10_000, source="chains")


def teacher(extent: int, n_steps: int, recipe: Recipe, update: NaturalGradient | None) -> Teacher:
    """The flow that comes with the package, or one trained here: smallest lattice first, levels handed on."""
    if f"ising-{extent}" in pretrained.names() and recipe == ISING.recipe:
        return pretrained.load("ising", extent)
    learned, size = None, 2
    while size <= extent:
        family, generator = ISING.family.on((size, size)), torch.Generator().manual_seed(size)
        learned, _ = train(
            family, ISING.space, recipe, generator=generator, n_steps=n_steps, update=update, start=learned
        )
        size *= 2
    if learned is None:
        raise ValueError(f"expected extent >= 2, got {extent}: the smallest student has 2×2 sites")
    return learned.precise()


def table(results: dict[str, Any]) -> dict[str, float]:
    """Print every answer beside its reference; return values, errors and references under flat names."""
    found: dict[str, float] = {}
    print(f"{'':18}{'value':>10} {'error':>9} {'exact':>10}")
    for name in QUANTITIES:
        answer = results[name]
        if answer["value"] is None:
            raise ValueError(f"expected a critical point, got none: {answer['reason']}; take more samples")
        exact = answer["reference"]
        print(f"{name:18}{answer['value']:10.6f} {answer['error']:9.6f} {exact:10.6f}")
        found |= {name: answer["value"], f"{name}_error": answer["error"], f"{name}_reference": exact}
    return found


def main(
    course: Course = COURSE,
    n_steps: int = 10,
    recipe: Recipe = ISING.recipe,
    update: NaturalGradient | None = None,
    directory: Path | None = None,
) -> dict[str, float]:
    """Teach, learn, read off.

    Args:
        course: which lattices, how many lessons and fields.
        n_steps, update: of training, where no flow is shipped.
        recipe: of the flow, if not the shipped one.
        directory: keeps lessons, so that a killed run continues, and figures.
    """
    flow = teacher(min(course.extents), n_steps, recipe, update)
    lessons = run_course(course, lambda extent: flow, directory, report=print)
    results = analyse(course, ISING, lessons)
    if directory:
        figures.draw(course, ISING, lessons, results, directory / "figures")
    return table(results)


if __name__ == "__main__":
    main(directory=Path("runs") / "mlrg_ising")
