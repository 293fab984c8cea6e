"""How the cost of gauge flows grows with V and N: d = 2, L = 4, 8, 16, 32 and U(1), SU(2), SU(3), SU(4).

Float64 on one thread, CPU seconds per field. Measured are a sample with its log q, one of its velocity evaluations
(a step of rk4 has four, exponentials included), a step of the natural gradient, and for comparison a force of
Wilson's action. The exponents of V belong to fits cost ~ V^exponent over all L for each group, those of N to
cost ~ N^exponent over SU(2), SU(3), SU(4) for each L. Memory, in the JSON, is the largest sum of live tensors.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import timing
import torch
import volume
from gauge_cases import Gauge
from timing import Row
from volume import Job, Task

from flows.architectures.gauge_continuous import GaugeContinuous
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge

SIZES, COLOURS, NUMBERS = (4, 8, 16, 32), (1, 2, 3, 4), 1 << 14
FLOW = GaugeContinuous(n_powers=2, radius=2.0, n_times=4, n_steps=2, base="haar")


def theory(n: int, size: int) -> Gauge:
    return U1Gauge((size, size), 2.0) if n == 1 else SUNGauge((size, size), n, 2.0 * n)


def jobs(n: int, size: int, n_numbers: int) -> Iterator[Job]:
    """What is measured of one theory, in batches of about as many real numbers."""
    action = theory(n, size)
    problem = Problem(FLOW.build(action), action)
    batch = max(2, n_numbers // (2 * size**2 * max(1, n * n - 1)))
    generator = torch.Generator().manual_seed(0)
    x = action.field.random(batch, generator)
    tasks: dict[str, Task] = {
        "sample": volume.sampling(problem, batch),
        "natural step": volume.training(problem, NaturalGradient(n_samples=batch, chunk=batch)),
        "force": lambda: action.force(x),
    }
    name = "U(1)" if n == 1 else f"SU({n})"
    yield from (Job(name, quantity, size, batch, task) for quantity, task in tasks.items())


def measure(
    sizes: tuple[int, ...] = SIZES, colours: tuple[int, ...] = COLOURS, n: int = 3, n_numbers: int = NUMBERS,
    report: Callable = print,
) -> list[Row]:  # fmt: skip
    """Median seconds per field of each job, in turns over all of them, and its memory."""
    found = {(c, job): None for c in colours for size in sizes for job in jobs(c, size, n_numbers)}
    memory = [volume.peak_bytes(job.task) for _, job in found]  # the first run of each: a warm-up
    turns = []
    for turn in range(n):
        report(f"turn {turn + 1} of {n}")
        turns.append([volume.seconds(job.task) for _, job in found])
    times = torch.tensor(turns, dtype=torch.float64).T
    rows = [_row(c, job, own, peak) for (c, job), own, peak in zip(found, times, memory)]
    return [*rows, *(_velocity(row) for row in rows if row["quantity"] == "sample")]


def _row(colours: int, job: Job, times: torch.Tensor, peak: int) -> Row:
    """The figures of a job, per field."""
    value, error = timing.median(times / job.n_samples)
    own = {"architecture": job.architecture, "quantity": job.quantity, "size": job.size, "colours": colours}
    return {**own, "seconds": value, "error": error, "n": len(times), "peak_bytes": peak / job.n_samples}


def _velocity(row: Row) -> Row:
    """The share of one velocity evaluation in a sample."""
    n_evaluations = 4 * FLOW.n_steps
    times = {key: row[key] / n_evaluations for key in ("seconds", "error")}
    return {**row, "quantity": "velocity", **times}


def exponents_of_n(rows: list[Row]) -> dict[str, float]:
    """The slope of log(seconds) against log N over SU(N), by quantity and size."""
    slopes = {}
    for key in dict.fromkeys((row["quantity"], row["size"]) for row in rows):
        own = [row for row in rows if (row["quantity"], row["size"]) == key and row["colours"] > 1]
        log_n, log_cost = (torch.tensor([math.log(row[k]) for row in own]) for k in ("colours", "seconds"))
        centred = log_n - log_n.mean()
        if len(own) > 1:
            slopes[f"{key[0]}, L = {key[1]}"] = float(centred @ log_cost / (centred @ centred))
    return slopes


def table(rows: list[Row]) -> str:
    """One line per group and quantity: milliseconds for each L, exponents of V and of N."""
    sizes, of_n = sorted({row["size"] for row in rows}), exponents_of_n(rows)
    lines = [f"{'ms':22}" + "".join(f"{f'L = {size}':>12}" for size in sizes) + f"{'exponent of V':>16}"]
    for (group, quantity), slope in volume.exponents(rows, "seconds").items():
        own = {r["size"]: r["seconds"] for r in rows if (r["architecture"], r["quantity"]) == (group, quantity)}
        lines.append(
            f"{group:8}{quantity:14}" + "".join(f"{1e3 * own[size]:12.4g}" for size in sizes) + f"{slope:16.2f}"
        )
    return "\n".join([*lines, "", "exponent of N", *(f"{what:22}{slope:8.2f}" for what, slope in of_n.items())])


def result() -> tuple[dict[str, Any], str]:
    """Everything measured, and its table."""
    torch.set_num_threads(1)
    rows = measure(report=lambda text: print(text, file=sys.stderr, flush=True))
    fits = {" ".join(key): slope for key, slope in volume.exponents(rows, "seconds").items()}
    fits = {"V": fits, "N": exponents_of_n(rows)}
    return {"case": "cost", "hardware": timing.hardware(), "rows": rows, "exponents": fits}, table(rows)
