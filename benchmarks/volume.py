"""How cost grows with the volume V: φ⁴ in two dimensions on L = 8, 16, 32, 64, for both architectures.

    python benchmarks/volume.py [--json]

Float64 on one thread, CPU seconds. Measured are a sample with its log q (batches of 2¹⁷ sites, so that all L use the
caches alike), and training steps on 64 samples: of the natural gradient, and of the reverse KL divergence by path
gradients. Memory is the largest sum of live tensors, temporaries included and parameters not. The exponents belong to
fits cost ~ V^exponent over all L; what is spent per parameter and not per site makes them smaller than one.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import timing
import torch
from timing import Row
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout without installing it

from flows.architectures.architecture import Architecture
from flows.architectures.continuous import Continuous
from flows.architectures.coupling import CouplingFlow
from flows.heap import keep_heap
from flows.updates.gradient import GradientUpdate
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem, Update
from lattices.theories.phi4 import Phi4

COLUMNS = {"seconds": ("ms", 1e3), "peak_bytes": ("MB", 1e-6)}
SIZES, SITES, STEP = (8, 16, 32, 64), 1 << 17, 64
ARCHITECTURES: dict[str, Architecture] = {"continuous": Continuous(), "coupling": CouplingFlow()}
Task = Callable[[], object]


class Job(NamedTuple):
    """One thing to measure: what is done, with how many samples, on how large a lattice."""

    architecture: str
    quantity: str
    size: int
    n_samples: int
    task: Task

    def row(self, times: Tensor, peak: int) -> Row:
        """Its figures: of a sample those of a batch divided by their number, of a step those of all of it."""
        value, error = timing.median(times)
        per = self.n_samples if self.quantity == "sample" else 1
        own = {"architecture": self.architecture, "quantity": self.quantity, "size": self.size}
        return {**own, "seconds": value / per, "error": error / per, "n": len(times), "peak_bytes": peak / per}


def updates(n: int) -> dict[str, Update]:
    """The kinds of training steps."""
    return {"natural step": NaturalGradient(n_samples=n, chunk=n), "path-gradient step": GradientUpdate(batch_size=n)}


def jobs(size: int, n_sites: int, n_step: int) -> Iterable[Job]:
    """A batch of samples and one training step of each kind, for both architectures."""
    action, n = Phi4((size, size), -4.0, 8.0), max(1, n_sites // size**2)
    for name, architecture in ARCHITECTURES.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            problem = Problem(architecture.build(action), action)
        yield Job(name, "sample", size, n, sampling(problem, n))
        for quantity, update in updates(n_step).items():
            yield Job(name, quantity, size, n_step, training(problem, update))


def sampling(problem: Problem, n: int) -> Task:
    generator = torch.Generator().manual_seed(0)
    return torch.no_grad()(lambda: problem.flow.sample_with_log_prob(n, None, generator))


def training(problem: Problem, update: Update) -> Task:
    generator, state = torch.Generator().manual_seed(0), update.init(problem)
    return lambda: update.step(problem, state, 0.5, generator)


def seconds(task: Task) -> float:
    """CPU seconds, which a loaded machine disturbs least."""
    start = time.process_time()
    task()
    return time.process_time() - start


def peak_bytes(task: Task) -> int:
    """The largest sum of memory that torch held at one time beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        task()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = [e for e in json.loads(path.read_text())["traceEvents"] if e["name"] == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def measure(
    sizes: tuple[int, ...] = SIZES, n: int = 3, n_sites: int = SITES, n_step: int = STEP, report: Callable = print
) -> list[Row]:
    """Median seconds of each job, in turns over all of them, and its memory."""
    all_jobs = [job for size in sizes for job in jobs(size, n_sites, n_step)]
    memory = [peak_bytes(job.task) for job in all_jobs]  # the first run of each: a warm-up
    turns = []
    for turn in range(n):
        report(f"turn {turn + 1} of {n}")
        turns.append([seconds(job.task) for job in all_jobs])
    return [job.row(own, peak) for job, own, peak in zip(all_jobs, torch.tensor(turns, dtype=torch.float64).T, memory)]


def exponents(rows: list[Row], column: str) -> dict[tuple[str, str], float]:
    """The slope of log(cost) against log V, by architecture and quantity."""
    slopes = {}
    for key in dict.fromkeys((row["architecture"], row["quantity"]) for row in rows):
        own = [row for row in rows if (row["architecture"], row["quantity"]) == key]
        log_volume = torch.tensor([2 * math.log(row["size"]) for row in own], dtype=torch.float64)
        log_cost = torch.tensor([math.log(row[column]) for row in own], dtype=torch.float64)
        centred = log_volume - log_volume.mean()
        slopes[key] = float(centred @ log_cost / (centred @ centred))
    return slopes


def table(rows: list[Row]) -> str:
    """One line per architecture and quantity: milliseconds and megabytes for each L, and their exponents."""
    sizes = sorted({row["size"] for row in rows})
    lines = [f"{'':32}" + "".join(f"{f'L = {size}':>12}" for size in sizes) + f"{'exponent of V':>16}"]
    for column, (unit, scale) in COLUMNS.items():
        for (architecture, quantity), slope in exponents(rows, column).items():
            own = {r["size"]: r[column] for r in rows if (r["architecture"], r["quantity"]) == (architecture, quantity)}
            columns = "".join(f"{scale * own[size]:12.4g}" for size in sizes)
            lines.append(f"{architecture:11}{quantity:19}{unit}{columns}{slope:16.2f}")
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    keep_heap()
    rows = measure(report=lambda text: print(text, file=sys.stderr, flush=True))
    print(table(rows))
    if "--json" in sys.argv[1:]:
        fits = {column: {" ".join(k): v for k, v in exponents(rows, column).items()} for column in COLUMNS}
        print(json.dumps({"case": "volume", "hardware": timing.hardware(), "rows": rows, "exponents": fits}))


if __name__ == "__main__":
    main()
