"""Renormalization-group benchmarks: critical couplings and exponents from teacher, student and moderator.

    python benchmarks/mlrg.py CASE [--pretrained] [--json] [--samples N] [--directory RUN]

CASE is cluster-A1, cluster-A1+E, cluster-2A1+E, ising, phi4 (form D, λ = 1), phi4-form-a (m² = -4: the critical λ) or
potts3. Lattice cases start from the shipped teachers with --pretrained and train them otherwise; RUN keeps finished
lessons, so that a killed benchmark goes on. The last line of the output with --json is one JSON object. Errors are one
standard error, statistical and systematic in quadrature.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from flows import runs
from flows.heap import keep_heap
from mlrg import pretrained
from mlrg.analysis import analyse
from mlrg.cluster.results import analyse as analyse_cluster
from mlrg.course import Course, run_course
from mlrg.systems import system
from mlrg.teacher import Teacher, train

NUMBERS = ("critical_coupling", "y_t", "nu", "delta_sigma")
SYSTEMS = ("ising", "phi4", "phi4-form-a", "potts3")
COURSES = {name: Course(name, (8, 16), common=(1,), n_samples=20_000, source="chains") for name in SYSTEMS}
COURSES["phi4"] = Course("phi4", (8, 16), common=(1,), n_samples=30_000, source="chains")
PUBLIC = {  # the public code of arXiv:2306.11054: J*/2, y_t, Δσ
    "cluster-A1": (0.825, 0.775, 0.085),
    "cluster-A1+E": (0.796, 1.17, 0.118),
    "cluster-2A1+E": (0.770, 1.37, 0.120),
}


def lattice(case: str, shipped: bool, n_samples: int | None, directory: Path | None) -> dict[str, Any]:
    """A course and what is read off it."""
    course = COURSES[case]
    if n_samples is not None:
        course = Course(**{**vars(course), "n_samples": n_samples})
    which = system(course.system)

    def teachers(extent: int) -> Teacher:
        if shipped or extent > course.extents[0]:
            return pretrained.load(course.system, extent)
        family = which.family.on((extent,) * 2)
        folder = directory / "teachers" / str(extent) if directory else None
        generator = torch.Generator().manual_seed(0)
        return train(family, which.space, which.recipe, generator=generator, directory=folder)[0].precise()

    lessons = run_course(course, teachers, directory, report=print)
    return runs.plain(analyse(course, which, lessons))


def flat(results: dict[str, Any]) -> dict[str, Any]:
    """critical_coupling, critical_coupling_error, critical_coupling_reference, … for each number."""
    row: dict[str, Any] = {}
    for name in NUMBERS:
        answer = results[name]
        row |= {name: answer["value"], f"{name}_error": answer.get("error"), f"{name}_reference": answer["reference"]}
    deepest = [pair for pair in results["pairs"] if "problem" not in pair][-1:]
    row["residual_kl"] = max((value for pair in deepest for value, _ in pair["residual_kl"]), default=None)
    return row


def cluster(case: str) -> dict[str, Any]:
    """The one-plaquette model. A1: moderators learned from three seeds beside the exact step. Others: the step with the
    scale-invariant environment, and the plain one beside it."""
    representation = case.removeprefix("cluster-")
    learned = case == "cluster-A1"
    plain = runs.plain(analyse_cluster("S2", representation, seeds=(0, 1, 2) if learned else ()))
    best = runs.plain(analyse_cluster("S2", representation, "scale-invariant"))
    public = dict(zip(("critical_coupling", "y_t", "delta_sigma"), PUBLIC[case]))
    first, second = (plain, {"scale_invariant": best}) if learned else (best, {"plain": plain})
    return {**{key: value for key, value in first.items() if key != "type"}, **second, "public_code": public}


def main() -> None:
    """Run one case and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=[*COURSES, *PUBLIC])
    parser.add_argument("--pretrained", action="store_true", help="start from the shipped teachers")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--samples", type=int, help="fields in each ensemble")
    parser.add_argument("--directory", type=Path, help="keep lessons here and resume from them")
    arguments = parser.parse_args()
    keep_heap()
    start = time.perf_counter()
    if arguments.case in PUBLIC:
        row = cluster(arguments.case)
    else:
        results = lattice(arguments.case, arguments.pretrained, arguments.samples, arguments.directory)
        for pair in results["pairs"]:
            keys = ("teacher", "student", "common", *NUMBERS, "y_h", "problem")
            print({key: pair[key] for key in keys if key in pair})
        row = flat(results)
    row = {"case": arguments.case, **row, "seconds": time.perf_counter() - start, "threads": torch.get_num_threads()}
    for name in NUMBERS:
        print(f"{name:18} {row[name]}  ± {row.get(name + '_error')}   reference {row.get(name + '_reference')}")
    if arguments.json:
        print(json.dumps(runs.plain(row)))


if __name__ == "__main__":
    main()
