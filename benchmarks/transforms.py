"""Time and memory of our spline against normflows' own, in one process with interleaved medians.

    python benchmarks/transforms.py [--json]

Each row evaluates one direction (forward or inverse map) and runs its backward pass, for 1024 x 64 numbers and
8 bins on one thread. Ratios are to normflows in eager mode (its masks break a compiled graph); `saved` is what autograd
keeps for the backward pass, beyond the arguments.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import timing
import torch
from normflows.utils.splines import unconstrained_rational_quadratic_spline
from timing import Row
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout without installing it

from flows.heap import keep_heap
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


def compare(mode: str, dtype: torch.dtype, inverse: bool) -> list[Row]:
    """Time all contestants in one setting; one row per map."""
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(1024, 64, generator=generator, dtype=dtype)).requires_grad_()
    parameters = torch.randn(1024, 64, 23, generator=generator, dtype=dtype).requires_grad_()
    maps = {
        name: timing.Contestant(partial(map_, x, parameters, BOUND, inverse), (x, parameters))
        for name, map_ in contestants(mode).items()
    }
    direction = "inverse" if inverse else "forward"
    setting = {"mode": mode, "dtype": str(dtype).removeprefix("torch."), "direction": direction}
    rows = [{**setting, **row} for row in timing.compare(maps)]
    for row in rows:
        barred = row["map"] == "spline" and not inverse
        row.update(bar=BARS[mode, setting["dtype"]] if barred else None, bar_on="both")
    return rows


def within_bars(rows: list[Row]) -> bool:
    """Say whether evaluation and backward pass of `spline` together meet the bars in every mode and dtype."""
    return all(row["both_ratio"] <= row["bar"] for row in rows if row["bar"])


def line(row: Row) -> str:
    return f"{row['mode']:9}{row['dtype']:9}{row['direction']:9}{row['map']:11}" + timing.line(row)


def main() -> None:
    torch.set_num_threads(1)
    keep_heap()
    print(f"{'':38}{timing.HEADER}")
    rows = []
    for mode, dtype, inverse in product(("eager", "compiled"), (torch.float32, torch.float64), (False, True)):
        new = compare(mode, dtype, inverse)
        print(*map(line, new), sep="\n", flush=True)
        rows += new
    if "--json" in sys.argv[1:]:
        result = {"case": "transforms", "within_bars": within_bars(rows), "hardware": timing.hardware()}
        print(json.dumps({**result, "rows": rows}))


if __name__ == "__main__":
    main()
