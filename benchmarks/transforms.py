"""Time and memory of our spline against normflows' own, in one process with interleaved medians.

    python benchmarks/transforms.py [--json]

Each row evaluates one direction (forward or inverse map) and runs its backward pass, for 1024 x 64 numbers and
8 bins on one thread. Ratios are to normflows in eager mode (its masks break a compiled graph); `saved` is what autograd
keeps for the backward pass, beyond the arguments.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from normflows.utils.splines import unconstrained_rational_quadratic_spline
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout without installing it

from flows.transforms.odd_spline import odd_spline
from flows.transforms.spline import spline

Map = Callable[..., tuple[Tensor, Tensor]]
BOUND = 5.0
BARS = {("eager", "float32"): 0.70, ("eager", "float64"): 0.70}
BARS |= {("compiled", "float32"): 0.30, ("compiled", "float64"): 0.50}


def normflows_spline(x: Tensor, parameters: Tensor, bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
    """Evaluate normflows' spline with linear tails from one tensor of parameters."""
    n_bins = (parameters.shape[-1] + 1) // 3
    lists = parameters.split((n_bins, n_bins, n_bins - 1), -1)
    return unconstrained_rational_quadratic_spline(x, *lists, inverse=inverse, tail_bound=bound)


def contestants(mode: str) -> dict[str, Map]:
    """Return the maps to time; the first one is the unit of the ratios."""
    if mode == "compiled":
        return {"normflows": normflows_spline, "spline": torch.compile(spline, fullgraph=True)}
    return {"normflows": normflows_spline, "spline": spline, "odd_spline": odd_spline}


def seconds(map_: Map, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[float, float]:
    """Return the time of one evaluation and of its backward pass."""
    start = time.perf_counter()
    y, log_det = map_(x, parameters, BOUND, inverse)
    middle = time.perf_counter()
    torch.autograd.grad((y, log_det), (x, parameters), (torch.ones_like(y), torch.ones_like(y)))
    return middle - start, time.perf_counter() - middle


def medians(maps: dict[str, Map], *arguments: Tensor | bool, n: int = 15) -> dict[str, list[float]]:
    """Return the median (evaluation, backward, sum) of each map, taken in turns so that all see the same load."""
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in maps}
    for _ in range(n + 2):
        for name, map_ in maps.items():
            pair = seconds(map_, *arguments)
            times[name].append((*pair, sum(pair)))
    return {name: [statistics.median(column) for column in zip(*rows[2:])] for name, rows in times.items()}


def saved_bytes(map_: Map, x: Tensor, parameters: Tensor, inverse: bool) -> int:
    """Return the size of the distinct storages that autograd keeps, beyond the arguments."""
    storages: dict[int, int] = {}
    kept: list[Tensor] = []  # no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        map_(x, parameters, BOUND, inverse)
    arguments = {t.untyped_storage().data_ptr() for t in (x, parameters)}
    return sum(size for pointer, size in storages.items() if pointer not in arguments)


def compare(mode: str, dtype: torch.dtype, inverse: bool) -> list[dict[str, Any]]:
    """Time all contestants in one setting; one row per map."""
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(1024, 64, generator=generator, dtype=dtype)).requires_grad_()
    parameters = torch.randn(1024, 64, 23, generator=generator, dtype=dtype).requires_grad_()
    maps = contestants(mode)
    times = medians(maps, x, parameters, inverse)
    memory = {name: saved_bytes(map_, x, parameters, inverse) for name, map_ in maps.items()}
    unit, unit_memory = times["normflows"], memory["normflows"]
    return [
        {
            "mode": mode,
            "dtype": str(dtype).removeprefix("torch."),
            "direction": "inverse" if inverse else "forward",
            "map": name,
            **dict(zip(("evaluate", "backward", "both"), times[name])),
            "evaluate_ratio": times[name][0] / unit[0],
            "backward_ratio": times[name][1] / unit[1],
            "both_ratio": times[name][2] / unit[2],
            "saved_bytes": memory[name],
            "saved_ratio": memory[name] / unit_memory,
        }
        for name in maps
    ]


def within_bars(rows: list[dict[str, Any]]) -> bool:
    """Say whether evaluation and backward pass of `spline` together meet the bars in every mode and dtype."""
    ours = [row for row in rows if (row["map"], row["direction"]) == ("spline", "forward")]
    return all(row["both_ratio"] <= BARS[row["mode"], row["dtype"]] for row in ours)


def line(row: dict[str, Any]) -> str:
    words = f"{row['mode']:9}{row['dtype']:9}{row['direction']:9}{row['map']:11}"
    columns = (f"{1e3 * row[part]:10.2f} ms{row[part + '_ratio']:6.2f}" for part in ("evaluate", "backward", "both"))
    return words + "".join(columns) + f"{row['saved_bytes'] / 1e6:8.1f} MB{row['saved_ratio']:6.2f}"


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'':38}{'evaluate, ratio':>19}{'backward, ratio':>19}{'both, ratio':>19}{'saved, ratio':>17}")
    rows = []
    for mode, dtype, inverse in product(("eager", "compiled"), (torch.float32, torch.float64), (False, True)):
        new = compare(mode, dtype, inverse)
        print(*map(line, new), sep="\n", flush=True)
        rows += new
    if "--json" in sys.argv[1:]:
        print(json.dumps({"case": "transforms", "within_bars": within_bars(rows), "rows": rows}))


if __name__ == "__main__":
    main()
