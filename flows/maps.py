"""Maps of densities on S² (Mollweide's projection, which keeps areas) and T² (the square), on one colour scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flows.plots import COLOURS, STYLE
from lattices.fields import Circle, FieldSpace, Sphere

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LogDensity = Callable[[Tensor], Tensor]
CELLS = 180
COLOURS_OF_DENSITY = "magma"
CLEAR: dict[Any, Any] = {"axes.titlelocation": "center", "axes.grid": False}


@dataclass(frozen=True)
class Panel:
    """One map: a normalised log-density (n, *event) -> (n,), or points (n, *event) where there is none.

    Args:
        title: above the map.
        log_density: drawn as colours, on the scale of the brightest map beside it.
        points: drawn as dots.
    """

    title: str
    log_density: LogDensity | None = None
    points: Tensor | None = None


def has_map(field: FieldSpace) -> bool:
    """Whether a field is a point of S² or T²."""
    if isinstance(field.target, Sphere):
        return field.target.n == 2 and field.lattice.volume == 1
    return isinstance(field.target, Circle) and field.lattice.volume == 2


def side_by_side(field: FieldSpace, panels: Sequence[Panel], path: Path, title: str = "") -> Path:
    """Maps of one space in a row, on one colour scale."""
    return gallery([(field, [panel]) for panel in panels], path, title, shared=True)


def gallery(
    columns: Sequence[tuple[FieldSpace, Sequence[Panel]]], path: Path, title: str = "", shared: bool = False
) -> Path:
    """Columns of maps, each of one space, such as target above model; one colour scale in each column.

    Args:
        columns: the space and its maps, from top to bottom.
        shared: one colour scale for all columns.
    """
    for field, _ in columns:
        if not has_map(field):
            raise ValueError(f"expected points of S² or T², got {field}: draw marginals instead")
    drawn = [[_values(field, panel) for panel in panels] for field, panels in columns]
    highest = [max((float(v.max()) for v in values if v is not None), default=1.0) for values in drawn]
    rows = max(len(panels) for _, panels in columns)
    widths = [1.75 if isinstance(field.target, Sphere) else 1.0 for field, _ in columns]
    with sheet(path, title, (2.3 * sum(widths), 2.45 * rows + 0.35 * bool(title))) as figure:
        grid = figure.add_gridspec(rows, len(columns), width_ratios=widths)
        for j, (field, panels) in enumerate(columns):
            limit = max(highest) if shared else highest[j]
            for i, panel in enumerate(panels):
                flat = None if isinstance(field.target, Circle) else "mollweide"
                draw(figure.add_subplot(grid[i, j], projection=flat), field, panel, drawn[j][i], limit)
    return path


def draw(axes: Axes, field: FieldSpace, panel: Panel, values: np.ndarray | None, highest: float) -> None:
    """One map, on axes of your own; those of S² have projection="mollweide"."""
    axes.set_title(panel.title, fontsize=10)
    first, second = _edges(field)
    if values is not None:
        shown: dict[str, Any] = {"cmap": COLOURS_OF_DENSITY, "vmin": 0, "vmax": highest, "rasterized": True}
        axes.pcolormesh(first, second, values.T, **shown)
    if panel.points is not None:
        s, t = _chart(field, panel.points).unbind(1)
        dots: dict[str, Any] = {"s": 2.5, "lw": 0, "color": COLOURS[0] if values is None else "white"}
        axes.scatter(s.cpu(), t.cpu(), alpha=0.6, rasterized=True, **dots)
    _frame(axes, field)


@torch.no_grad()
def normalised(field: FieldSpace, log_density: LogDensity) -> LogDensity:
    """A density on S² or T² known up to a factor, divided by its integral over the cells of the map."""
    values = _values(field, Panel("", log_density))
    _, second = _edges(field)
    heights = np.diff(np.sin(second) if isinstance(field.target, Sphere) else second)
    log_z = math.log(float((values * heights).sum()) * math.pi / CELLS)
    return lambda x: log_density(x) - log_z


@contextmanager
def sheet(path: Path, title: str, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure in the style of the library, saved at the end; matplotlib is imported late, no window opens."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({**STYLE, **CLEAR}):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        if title:
            figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def pairwise(field: FieldSpace, sets: Sequence[tuple[str, Tensor, Tensor | None]], path: Path, title: str) -> Path:
    """Marginals of up to four coordinates, for spheres and tori of any dimension.

    One on the diagonal, and of pairs the first set of points below it and the second, if any, above.

    Args:
        sets: names, points (n, *event), and weights (n,) or None.
    """
    low, high = (-1.0, 1.0) if isinstance(field.target, Sphere) else (-math.pi, math.pi)
    flat = [(name, x.flatten(1)[:, :4].cpu().numpy(), None if w is None else w.cpu().numpy()) for name, x, w in sets]
    n, bins = flat[0][1].shape[1], np.linspace(low, high, 41)
    with sheet(path, title, (1.9 * n + 0.4, 1.9 * n + 0.6)) as figure:
        panels = figure.subplots(n, n, squeeze=False)
        for i, j in np.ndindex(n, n):
            axes = panels[i, j]
            if i == j:
                _one(axes, flat, i, bins)
            elif i > j or len(flat) > 1:
                _, x, w = flat[0 if i > j else 1]
                counts = np.histogram2d(x[:, j], x[:, i], [bins, bins], weights=w, density=True)[0]
                axes.pcolormesh(bins, bins, counts.T, cmap=COLOURS_OF_DENSITY, vmin=0, rasterized=True)
            else:
                axes.axis("off")
            axes.set(xlim=(low, high), xticks=[], yticks=[])
            axes.set(xlabel=f"{_letter(field)}{j + 1}" if i == n - 1 else "")
            axes.set(ylabel=f"{_letter(field)}{i + 1}" if j == 0 else "")
        panels[0, 0].legend(fontsize=7, loc="upper right")
    return path


def _one(axes: Axes, sets: Sequence[tuple[str, np.ndarray, np.ndarray | None]], i: int, bins: np.ndarray) -> None:
    for colour, (name, x, w) in zip(COLOURS, sets):
        axes.hist(x[:, i], bins, weights=w, density=True, histtype="step", lw=1.4, color=colour, label=name)  # type: ignore[arg-type]


def _letter(field: FieldSpace) -> str:
    return "x" if isinstance(field.target, Sphere) else "t"


def _edges(field: FieldSpace) -> tuple[np.ndarray, np.ndarray]:
    """The edges of the cells: longitude and latitude on S², two angles on T²."""
    half = math.pi / 2 if isinstance(field.target, Sphere) else math.pi
    return np.linspace(-math.pi, math.pi, 2 * CELLS + 1), np.linspace(-half, half, CELLS + 1)


@torch.no_grad()
def _values(field: FieldSpace, panel: Panel) -> np.ndarray | None:
    """The density at the centres of the cells."""
    if panel.log_density is None:
        return None
    centres = [torch.as_tensor((edges[1:] + edges[:-1]) / 2) for edges in _edges(field)]
    a, b = torch.cartesian_prod(*centres).unbind(1)
    unit = torch.stack([b.cos() * a.cos(), b.cos() * a.sin(), b.sin()], 1)
    x = unit if isinstance(field.target, Sphere) else torch.stack([a, b], 1)
    parts = x.reshape(-1, *field.event_shape).split(8192)
    density = torch.cat([panel.log_density(part).double().exp() for part in parts])
    return density.reshape(len(centres[0]), len(centres[1])).cpu().numpy()


def _chart(field: FieldSpace, x: Tensor) -> Tensor:  # (n, *event) -> (n, 2)
    if isinstance(field.target, Circle):
        return x.flatten(1)
    s = x.flatten(1)
    return torch.stack([torch.atan2(s[:, 1], s[:, 0]), s[:, 2].clamp(-1, 1).asin()], 1)


def _frame(axes: Axes, field: FieldSpace) -> None:
    """Meridians and parallels without numbers; the square from -π to π."""
    if isinstance(field.target, Sphere):
        axes.set(xticks=np.radians(np.arange(-120, 121, 60)), yticks=np.radians(np.arange(-60, 61, 30)))
        axes.set(xticklabels=[], yticklabels=[])
        axes.set_longitude_grid_ends(90)  # type: ignore[attr-defined]
        axes.grid(True, color="#999999", lw=0.4, alpha=0.5)
        axes.set_axisbelow(False)
        return
    axes.set(xlim=(-math.pi, math.pi), ylim=(-math.pi, math.pi), aspect="equal")
    ticks: dict[str, Any] = {"ticks": [-math.pi, 0, math.pi], "labels": ["−π", "0", "π"]}
    axes.set_xticks(**ticks)
    axes.set_yticks(**ticks)
    axes.tick_params(length=2, labelsize=8)
