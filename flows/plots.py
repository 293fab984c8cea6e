"""Figures of a run, drawn without a screen: training curve, log-weights, correlator, Metropolis history, charge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from flows.tables import Column
from lattices.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#1b6ca8", "#d1603d", "#3a8d5d", "#7b5aa6")
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "font.size": 10,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 160,
}


def training_curve(history: Sequence[dict[str, Any]], path: Path) -> Path:
    """Loss -⟨log w⟩, an upper bound of -log Z, and batch ESS against the number of updates."""
    accepted = [record for record in history if record["loss"] is not None]
    steps = [record["step"] for record in accepted]
    with Canvas(path, "Training", n_axes=2) as (loss, ess):
        loss.plot(steps, [record["loss"] for record in accepted], ".-", color=COLOURS[0], lw=1.5)
        loss.set(ylabel="loss = −⟨log w⟩  ≥  −log Z", xlabel="update")
        ess.plot(steps, [record["ess"] for record in accepted], ".-", color=COLOURS[1], lw=1.5)
        for axes in (loss, ess):
            _integers(axes)
        ess.set(ylabel="ESS of the batch", ylim=(0, 1.03), xlabel="update")
    return path


def log_weight_histogram(log_weights: Tensor, log_z: float, path: Path) -> Path:
    """The distribution of log w - log Z: a narrow peak at zero is a flow that has learned its target."""
    values = log_weights.cpu().numpy() - log_z
    inside = np.abs(values) <= np.quantile(np.abs(values), 0.999)
    with Canvas(path, "Log-weights of the flow's samples") as (axes,):
        axes.hist(values[inside], bins=60, density=True, color=COLOURS[0], alpha=0.35)
        axes.hist(values[inside], bins=60, density=True, color=COLOURS[0], histtype="step", lw=1.5)
        axes.axvline(0, color="#555555", lw=1, ls="--")
        axes.set(xlabel="log w − log Z", ylabel="density")
        text = f"n = {len(values)}\nstd = {values.std():.3f}"
        axes.text(0.02, 0.96, text, transform=axes.transAxes, va="top", color="#222222")
    return path


def correlator(columns: Sequence[Column], path: Path) -> Path:
    """C(t) of every method with error bars, slightly shifted sideways to keep them apart."""
    with Canvas(path, "Correlator of time slices") as (axes,):
        for i, column in enumerate(columns):
            points = [e for name, e in column.estimates.items() if name.startswith("C(")]
            t = np.arange(len(points)) + 0.06 * (i - (len(columns) - 1) / 2)
            values, errors = ([getattr(e, key) for e in points] for key in ("value", "error"))
            colour, marker = COLOURS[i % len(COLOURS)], "os^D"[i % 4]
            axes.errorbar(t, values, errors, label=column.name, color=colour, marker=marker, ms=5, ls="none", capsize=3)
        _integers(axes)
        axes.set(xlabel="t", ylabel="C(t)", yscale="log")
        axes.legend()
    return path


def metropolis_history(values: Tensor, indices: Tensor, path: Path, symbol: str = "M", n_shown: int = 1000) -> Path:
    """An observable along the start of the Metropolis chain, and the lengths of all runs of rejections."""
    chain = values[indices].cpu().numpy()
    stays = np.diff(np.flatnonzero(np.diff(indices.cpu().numpy(), prepend=-1, append=-1)))
    lengths, counts = np.unique(stays, return_counts=True)
    with Canvas(path, "Independence Metropolis", n_axes=2) as (trace, runs):
        trace.plot(chain[:n_shown], color=COLOURS[0], lw=0.7)
        trace.set(xlabel="step", ylabel=symbol)
        runs.bar(lengths, counts, color=COLOURS[1], alpha=0.8)
        _integers(runs)
        runs.set(xlabel="steps at one configuration", ylabel="occurrences", yscale="log")
    return path


def charge_histogram(histograms: Mapping[str, Mapping[int, Estimate]], exact: Mapping[int, float], path: Path) -> Path:
    """P(Q) of every method with error bars, slightly shifted sideways, on the exact one where it is known."""
    with Canvas(path, "Topological charge") as (axes,):
        draw_charges(axes, histograms, exact)
    return path


def draw_charges(axes: Axes, histograms: Mapping[str, Mapping[int, Estimate]], exact: Mapping[int, float]) -> None:
    """The content of `charge_histogram`, on axes of your own."""
    seen = [q for found in histograms.values() for q in found]
    shown = {q: p for q, p in exact.items() if min(seen) <= q <= max(seen)}
    axes.bar(list(shown), list(shown.values()), width=0.9, color="#dddddd", label="exact" if shown else None)
    for i, (name, found) in enumerate(histograms.items()):
        q = np.array(list(found)) + 0.12 * (i - (len(histograms) - 1) / 2)
        values = [estimate.value for estimate in found.values()]
        errors = [estimate.error if np.isfinite(estimate.error) else 0.0 for estimate in found.values()]
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": "os^D"[i % 4]}
        axes.errorbar(q, values, errors, label=name, ms=4, ls="none", capsize=2, **style)
    _integers(axes)
    least = min(estimate.value for found in histograms.values() for estimate in found.values() if estimate.value > 0)
    axes.set(xlabel="Q", ylabel="P(Q)", yscale="log", ylim=(least / 4, 4))
    axes.legend(loc="upper center", ncols=3, fontsize=8)


def _integers(axes: Axes) -> None:
    """Ticks at integers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


class Canvas:
    """A figure with a title, saved and closed at the end; matplotlib is imported late, no window opens."""

    def __init__(self, path: Path, title: str, n_axes: int = 1) -> None:
        self.path, self.title, self.n_axes = path, title, n_axes

    def __enter__(self) -> list[Axes]:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.style = rc_context(STYLE)
        self.style.__enter__()
        self.figure: Figure = Figure(figsize=(5.2 * self.n_axes, 3.6))
        FigureCanvasAgg(self.figure)
        self.figure.suptitle(self.title, fontsize=12, fontweight="bold", x=0.01, ha="left")
        return list(self.figure.subplots(1, self.n_axes, squeeze=False)[0])

    def __exit__(self, *raised: Any) -> None:
        try:
            if raised[0] is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.figure.savefig(self.path)
        finally:
            self.style.__exit__(*raised)
