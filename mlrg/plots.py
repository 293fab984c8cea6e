"""Figures of the renormalization group, drawn without a screen: functions that write one png each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flows.plots import COLOURS, STYLE
from lattices.statistics import Estimate
from mlrg.couplings import CouplingSpace
from mlrg.fixed_points import FixedPoint
from mlrg.learning import Fitted
from mlrg.lessons import Lesson
from mlrg.moderator import GradientFlow
from mlrg.phases import flow_line, phase_map
from mlrg.scaling import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VIOLET = COLOURS
GREY, INK = "#8a8a8a", "#222222"
PHASES = ("#e6eff7", "#faece6")
"""Backgrounds of the two phases: where flow lines end, below and above."""

Row = tuple[Estimate, float | None]
"""An estimate and what is known of it."""


class Atlas(NamedTuple):
    """A learned map to draw: the moderator, the region, its critical point, the points that it was taught at."""

    moderator: Fitted
    space: CouplingSpace
    critical: FixedPoint | None
    lessons: Sequence[Lesson]
    title: str


def coupling_map(atlas: Atlas, path: Path) -> Path:
    """J'(J) of one coupling with the diagonal, every lesson with its error bar, and below what the fit leaves over."""
    moderator, name = atlas.moderator, atlas.space.names[0]
    at = torch.stack([x.couplings for x in atlas.lessons])
    curve = _line_of_couplings(at)
    image, taught = moderator(curve).detach(), torch.stack([x.image[:1] for x in atlas.lessons])
    errors = torch.stack([x.covariance.diagonal()[:1] for x in atlas.lessons]).sqrt()
    scale = _power(float(errors.mean()))
    with canvas(path, atlas.title, (2, 1), (6.0, 5.4), height_ratios=[3, 1], sharex=True) as (axes, rest):
        axes.plot(curve, curve, color=GREY, lw=1, ls="--", label="J′ = J")
        axes.plot(curve, image, color=BLUE, lw=2, label="learned map M(J)")
        _points(axes, at[:, 0], taught[:, 0], errors[:, 0], ORANGE, "lessons")
        left_over = (taught - moderator(at).detach())[:, 0] / scale
        _points(rest, at[:, 0], left_over, errors[:, 0] / scale, ORANGE, None)
        rest.axhline(0, color=BLUE, lw=2)
        if atlas.critical is not None:
            _mark_fixed_point(axes, rest, float(atlas.critical.couplings[0]), float(atlas.critical.stability[0, 0]))
        axes.set(ylabel=f"J′ = {name} after one step")
        rest.set(xlabel=f"J = {name}", ylabel=f"lesson − M\n[10$^{{{round(np.log10(scale))}}}$]")
        axes.legend(loc="upper left")
    return path


def curve_with_diagonal(J: Tensor, image: Tensor, fixed_point: float, title: str, path: Path) -> Path:
    """J'(J) of an exact map along a line of couplings, with the diagonal."""
    with canvas(path, title, (1, 1), (5.6, 4.2)) as (axes,):
        axes.plot(J, J, color=GREY, lw=1, ls="--", label="J′ = J")
        axes.plot(J, image, color=BLUE, lw=2, label="exact map")
        axes.plot([fixed_point], [fixed_point], "o", ms=9, mfc="white", mec=INK, mew=1.6, zorder=5)
        axes.annotate(
            f"J* = {fixed_point:.5f}", (fixed_point, fixed_point), (14, -14), textcoords="offset points", va="top"
        )
        axes.set(xlabel="J", ylabel="J′")
        axes.legend(loc="upper left")
    return path


def flow_diagram(atlas: Atlas, path: Path, n_grid: int = 100) -> Path:
    """The flow of two couplings: phases as background, the critical surface between them, the arrows of M(J) - J,
    flow lines from near the fixed point, the lessons."""
    space, names = atlas.space, atlas.space.names
    with canvas(path, atlas.title, (1, 1), (6.4, 5.2)) as (axes,):
        if atlas.critical is not None:
            _phases(axes, atlas, atlas.critical, n_grid)
        _arrows(axes, atlas)
        at = torch.stack([x.couplings for x in atlas.lessons])
        axes.plot(at[:, 0], at[:, 1], ".", ms=5, color=INK, alpha=0.55, label="lessons", zorder=3)
        if atlas.critical is not None:
            for start in _around(atlas.critical, space):
                line = flow_line(atlas.moderator, space, start).couplings
                axes.plot(line[:, 0], line[:, 1], ".-", color=BLUE, lw=1.4, ms=4, zorder=4)
            _ring(axes, atlas.critical.couplings)
        axes.set(xlabel=names[0], ylabel=names[1])
        axes.set(xlim=(space.lower[0], space.upper[0]), ylim=(space.lower[1], space.upper[1]))
        axes.grid(False)
        handles, labels = axes.get_legend_handles_labels()
        axes.figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return path


def monotone_landscape(atlas: Atlas, path: Path) -> Path:
    """The monotone C(J) with flow lines that fall along it: a curve of one coupling, a contour map of two."""
    if not isinstance(atlas.moderator, GradientFlow):
        raise ValueError("expected a GradientFlow, got a map without a monotone: learn one")
    draw = _landscape_of_one if len(atlas.space.names) == 1 else _landscape_of_two
    return draw(atlas, atlas.moderator, path)


def estimates(rows: Mapping[str, Row], title: str, path: Path) -> Path:
    """One panel for each quantity: the estimate with its error bar, the reference as a line, the pull in words."""
    with canvas(path, title, (len(rows), 1), (6.4, 0.6 + 0.85 * len(rows))) as panels:
        for axes, (name, (estimate, reference)) in zip(panels, rows.items()):
            _one_estimate(axes, name, estimate, reference)
    return path


def convergence(
    series: Mapping[str, tuple[Sequence[Series], Estimate | None, float | None]], title: str, path: Path
) -> Path:
    """Answers against the number of blockings, one colour for each student; the extrapolated band and the reference.

    Args:
        series: for each quantity its series, the answer for the infinite lattice, and the reference.
    """
    with canvas(path, title, (1, len(series)), (0.6 + 3.2 * len(series), 4.0)) as panels:
        for axes, (name, (rows, answer, reference)) in zip(panels, series.items()):
            _one_convergence(axes, rows, answer, reference)
            axes.set(title=name, xlabel="blockings of the teacher")
        handles = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels())}
        panels[0].figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    return path


class Densities(NamedTuple):
    """Weighted samples of one statistic of teacher and student on the common lattice, and what is known exactly."""

    name: str
    teacher: Tensor  # (n,)
    teacher_weights: Tensor  # (n,)
    student: Tensor  # (m,)
    student_weights: Tensor  # (m,)
    curve: tuple[Tensor, Tensor] | None = None  # points and the exact density of the student there


def matched_densities(panels: Sequence[Densities], title: str, path: Path, n_bins: int = 50) -> Path:
    """Histograms of teacher (already divided by ζ) and student on the common lattice, and the exact likelihood."""
    with canvas(path, title, (1, len(panels)), (4.8 * len(panels) + 0.4, 3.9)) as columns:
        for axes, panel in zip(columns, panels):
            _one_density(axes, panel, n_bins)
        handles = {label: handle for axes in columns for handle, label in zip(*axes.get_legend_handles_labels())}
        columns[0].figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return path


@contextmanager
def canvas(
    path: Path, title: str, shape: tuple[int, int], size: tuple[float, float], **options: Any
) -> Iterator[list[Axes]]:
    """The axes of a figure with a title, saved and closed at the end; matplotlib is imported late, no window opens."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure: Figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
        if "height_ratios" in options:
            options["gridspec_kw"] = {"height_ratios": options.pop("height_ratios")}
        yield list(figure.subplots(*shape, squeeze=False, **options).flat)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _points(axes: Axes, x: Tensor, y: Tensor, error: Tensor, colour: str, label: str | None) -> None:
    axes.errorbar(x, y, error, color=colour, marker="o", ms=5, ls="none", capsize=3, label=label, zorder=4)


def _line_of_couplings(at: Tensor) -> Tensor:  # -> (200, 1)
    low, high = float(at.min()), float(at.max())
    margin = 0.08 * max(high - low, 1e-3)
    return torch.linspace(low - margin, high + margin, 200, dtype=torch.float64)[:, None]


def _power(value: float) -> float:
    """The power of ten below a positive number."""
    return float(10.0 ** np.floor(np.log10(max(value, 1e-300))))


def _mark_fixed_point(axes: Axes, rest: Axes, star: float, slope: float) -> None:
    axes.plot([star], [star], "o", ms=10, mfc="none", mec=INK, mew=1.6, zorder=5)
    text = f"J* = {star:.5f}\nM′(J*) = {slope:.3f}"
    axes.annotate(text, (star, star), (16, -16), textcoords="offset points", va="top", color=INK)
    rest.axvline(star, color=GREY, lw=1, ls=":")


def _ring(axes: Axes, point: Tensor) -> None:
    axes.plot([point[0]], [point[1]], "o", ms=11, mfc="white", mec=INK, mew=1.8, zorder=6, label="critical fixed point")


def _phases(axes: Axes, atlas: Atlas, critical: FixedPoint, n: int) -> None:
    from matplotlib.colors import ListedColormap

    grid, side = phase_map(atlas.moderator, atlas.space, critical, n)
    x, y, z = (column.reshape(n, n) for column in (grid[:, 0], grid[:, 1], side.double()))
    axes.pcolormesh(x, y, z, cmap=ListedColormap(PHASES), vmin=-1, vmax=1, shading="nearest", rasterized=True)
    smooth = torch.nn.functional.avg_pool2d(z[None], 7, 1, 3, count_include_pad=False)[0]  # a line without stairs
    axes.contour(x, y, smooth, levels=[0.0], colors=[ORANGE], linewidths=1.8)
    axes.plot([], [], color=ORANGE, lw=1.8, label="critical surface")


def _arrows(axes: Axes, atlas: Atlas, n: int = 15) -> None:
    """Where one step leads, each arrow as long as the step up to a bound: directions stay visible near fixed points."""
    space = atlas.space
    unit = torch.linspace(-0.93, 0.93, n, dtype=torch.float64)
    grid = space.centre + space.scale * torch.cartesian_prod(unit, unit)
    move = (atlas.moderator(grid).detach() - grid) / space.scale
    length = move.norm(dim=1, keepdim=True).clamp(min=1e-12)
    move = move / length * (0.11 * torch.tanh(length / 0.11)) * space.scale
    style: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.0028}
    style |= {"headwidth": 4.5, "headlength": 5.5}
    axes.quiver(grid[:, 0], grid[:, 1], move[:, 0], move[:, 1], color=GREY, **style, zorder=2)


def _around(critical: FixedPoint, space: CouplingSpace, n: int = 8, distance: float = 0.06) -> list[Tensor]:
    """Starts of flow lines: along the relevant direction, and from far out along the irrelevant one."""
    values, vectors = torch.linalg.eig(critical.stability)
    order = values.abs().argsort(descending=True)
    out, along = (vectors[:, k].real * space.scale.norm() for k in order[:2])
    starts = [critical.couplings + s * distance * out for s in (-0.5, 0.5)]
    for far in np.linspace(-1.0, 1.0, n):
        starts += [critical.couplings + far * along + s * distance * out for s in (-0.25, 0.25)]
    return [start for start in starts if bool(space.contains(start))]


def _landscape_of_one(atlas: Atlas, moderator: GradientFlow, path: Path) -> Path:
    at = torch.stack([x.couplings for x in atlas.lessons])
    curve = _line_of_couplings(at)
    scale = _power(float(moderator.monotone(curve).detach().abs().max()))
    with canvas(path, atlas.title, (1, 1), (6.0, 4.2)) as (axes,):
        axes.plot(curve, moderator.monotone(curve).detach() / scale, color=BLUE, lw=2)
        if atlas.critical is not None:
            star = atlas.critical.couplings
            for side, colour in ((-1, GREEN), (1, ORANGE)):
                start = star + side * 0.03 * (at.max() - at.min())
                line = flow_line(moderator, atlas.space, start).couplings
                line = line[(line[:, 0] >= curve[0, 0]) & (line[:, 0] <= curve[-1, 0])]
                label = f"flow line, J {'>' if side > 0 else '<'} J*"
                axes.plot(line, moderator.monotone(line).detach() / scale, "o-", color=colour, ms=5, lw=1, label=label)
            top = float(moderator.monotone(star[None]).detach()[0]) / scale
            axes.plot(star, [top], "o", ms=10, mfc="white", mec=INK, mew=1.6, zorder=5, label="fixed point J*")
            axes.legend(loc="lower center")
        exponent = round(np.log10(scale))
        axes.set(xlabel=f"J = {atlas.space.names[0]}", ylabel=f"monotone C(J)  [10$^{{{exponent}}}$]")
    return path


def _landscape_of_two(atlas: Atlas, moderator: GradientFlow, path: Path, n: int = 80) -> Path:
    space = atlas.space
    x, y = (torch.linspace(a, b, n, dtype=torch.float64) for a, b in zip(space.lower, space.upper))
    height = moderator.monotone(torch.cartesian_prod(x, y)).detach().reshape(n, n)
    scale = _power(float(height.abs().max()))
    with canvas(path, atlas.title, (1, 1), (6.6, 5.2)) as (axes,):
        filled = axes.contourf(x, y, height.T / scale, levels=24, cmap="GnBu_r")
        axes.contour(x, y, height.T / scale, levels=24, colors="white", linewidths=0.4)
        exponent = round(np.log10(scale))
        axes.figure.colorbar(filled, ax=axes, label=f"monotone C(J)  [10$^{{{exponent}}}$]", shrink=0.9)
        if atlas.critical is not None:
            for start in _around(atlas.critical, space):
                line = flow_line(moderator, space, start).couplings
                axes.plot(line[:, 0], line[:, 1], ".-", color=ORANGE, lw=1.3, ms=4)
            _ring(axes, atlas.critical.couplings)
        axes.set(xlabel=space.names[0], ylabel=space.names[1])
        axes.set(xlim=(space.lower[0], space.upper[0]), ylim=(space.lower[1], space.upper[1]))
        axes.grid(False)
    return path


def _one_estimate(axes: Axes, name: str, estimate: Estimate, reference: float | None) -> None:
    axes.errorbar([estimate.value], [0], xerr=[estimate.error], color=BLUE, marker="o", ms=6, capsize=4, lw=2)
    known = [] if reference is None else [reference]
    span = max(3.2 * estimate.error, *(1.6 * abs(estimate.value - r) for r in known), 1e-4 * abs(estimate.value))
    text = str(estimate) if estimate.error > 0 else f"{estimate.value:.6f}"
    if reference is not None:
        axes.axvline(reference, color=ORANGE, lw=1.8)
        pull = f"{estimate.z_score(reference):+.1f} σ" if estimate.error > 0 else f"{estimate.value - reference:+.2g}"
        text += f"\nref. {reference:.6g}\n{pull}"
    axes.set(xlim=(estimate.value - span, estimate.value + span), ylim=(-1, 1), yticks=[])
    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
    axes.text(1.02, 0.5, text, transform=axes.transAxes, va="center", fontsize=9, color=INK)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=5)
    axes.ticklabel_format(axis="x", useOffset=False)


def _one_convergence(axes: Axes, rows: Sequence[Series], answer: Estimate | None, reference: float | None) -> None:
    students = sorted({extent for row in rows for extent in row.extents})
    for i, extent in enumerate(students):
        own = sorted(
            (_n_blockings(extent, r.common), r.estimates[r.extents.index(extent)]) for r in rows if extent in r.extents
        )
        n = np.array([k for k, _ in own]) + 0.07 * (i - (len(students) - 1) / 2)
        values, errors = ([getattr(e, key) for _, e in own] for key in ("value", "error"))
        style: dict[str, Any] = {"color": COLOURS[i % 4], "marker": "os^D"[i % 4], "ms": 5, "lw": 1, "capsize": 3}
        axes.errorbar(n, values, errors, label=f"{2 * extent} → {extent}", **style)
    if answer is not None:
        band = (answer.value - answer.error, answer.value + answer.error)
        axes.axhspan(*band, color=GREY, alpha=0.2, lw=0, label="answer for L → ∞")
    if reference is not None:
        axes.axhline(reference, color=INK, lw=1.2, ls="--", label="reference")
    n_blockings = sorted({_n_blockings(extent, row.common) for row in rows for extent in row.extents})
    axes.set(xticks=range(n_blockings[0], n_blockings[-1] + 1), xlim=(n_blockings[0] - 0.5, n_blockings[-1] + 0.5))
    axes.ticklabel_format(axis="y", useOffset=False)


def _n_blockings(extent: int, common: int) -> int:
    """Of the teacher, which has twice the extent."""
    return (2 * extent // common).bit_length() - 1


def _one_density(axes: Axes, panel: Densities, n_bins: int) -> None:
    both = torch.cat([panel.teacher, panel.student])
    low, high = (float(torch.quantile(both[:: max(1, len(both) // 10**6)], q)) for q in (0.001, 0.999))
    bins = np.linspace(low - 0.05 * (high - low), high + 0.05 * (high - low), n_bins + 1).tolist()
    t, w = panel.teacher.numpy(), panel.teacher_weights.numpy()
    axes.hist(t, bins, weights=w, density=True, color=BLUE, alpha=0.3, label="teacher, blocked")
    s, v = panel.student.numpy(), panel.student_weights.numpy()
    axes.hist(s, bins, weights=v, density=True, histtype="step", color=ORANGE, lw=1.8, label="student")
    if panel.curve is not None:
        axes.plot(*panel.curve, color=INK, lw=1.4, label="the student's likelihood")
    axes.set(xlabel=panel.name, ylabel="density", yticks=[])
