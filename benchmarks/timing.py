"""Time and memory of maps that are evaluated and differentiated, side by side in one process."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

PARTS = ("evaluate", "backward", "both")
Row = dict[str, Any]


class Contestant(NamedTuple):
    """Something to time: what it evaluates, and the tensors it is differentiated by."""

    evaluate: Callable[[], tuple[Tensor, ...]]
    leaves: Sequence[Tensor]

    def seconds(self) -> tuple[float, float, float]:
        """The time of one evaluation, of its backward pass, and of both."""
        start = time.process_time()
        outputs = self.evaluate()
        middle = time.process_time()
        torch.autograd.grad(outputs, self.leaves, [torch.ones_like(y) for y in outputs])
        end = time.process_time()
        return middle - start, end - middle, end - start

    def saved_bytes(self) -> int:
        """The size of the distinct storages that autograd keeps for the backward pass, beyond the leaves."""
        storages: dict[int, int] = {}
        kept: list[Tensor] = []  # no address is used twice

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self.evaluate()
        leaves = {leaf.untyped_storage().data_ptr() for leaf in self.leaves}
        return sum(size for pointer, size in storages.items() if pointer not in leaves)


def compare(contestants: dict[str, Contestant], n: int = 15) -> list[Row]:
    """Median times, ratios and saved memory of all contestants; the first one is the unit.

    They take turns, and a ratio is the median of the ratios within each turn: all see the same load.
    """
    times = _in_turns(contestants, n)
    memory = {name: contestant.saved_bytes() for name, contestant in contestants.items()}
    unit = next(iter(contestants))
    rows: list[Row] = []
    for name, own in times.items():
        row: Row = {"map": name, "n": n, "saved_bytes": memory[name], "saved_ratio": memory[name] / memory[unit]}
        for part, seconds, ratios in zip(PARTS, own.T, (own / times[unit]).T):
            row[part] = float(seconds.median())
            row[f"{part}_ratio"], row[f"{part}_ratio_error"] = median(ratios)
        rows.append(row)
    return rows


def median(values: Tensor) -> tuple[float, float]:  # (n,) -> value, error
    """The median, and its standard error for normal values, 1.86 MAD / √n, which outliers leave alone."""
    middle = values.quantile(0.5)
    return float(middle), float(1.858 * (values - middle).abs().quantile(0.5) / len(values) ** 0.5)


def line(row: Row) -> str:
    """Times, ratios and memory of a row of `compare`, as columns below `HEADER`."""
    columns = (f"{1e3 * row[part]:10.2f} ms{row[part + '_ratio']:6.2f}" for part in PARTS)
    return "".join(columns) + f"{row['saved_bytes'] / 1e6:8.1f} MB{row['saved_ratio']:6.2f}"


HEADER = "".join(f"{part + ', ratio':>19}" for part in PARTS) + f"{'saved, ratio':>17}"


def hardware() -> dict[str, Any]:
    """What the figures depend on: processor, cores, threads, load, versions."""
    return {
        "cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
        "torch": torch.__version__, "python": platform.python_version(), "system": platform.platform(),
    }  # fmt: skip


def _cpu() -> str:
    """The name of the processor, if the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _in_turns(contestants: dict[str, Contestant], n: int, warm_up: int = 2) -> dict[str, Tensor]:  # -> (n, 3) each
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contestants}
    for _ in range(warm_up + n):
        for name, contestant in contestants.items():
            times[name].append(contestant.seconds())
    return {name: torch.tensor(rows[warm_up:], dtype=torch.float64) for name, rows in times.items()}
