"""Figures of spins: a configuration as arrows and colours, the distribution of the energy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from flows.plots import COLOURS, Canvas
from lattices.fields import FieldSpace
from lattices.spin_observables import spin_components

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def configuration(field: FieldSpace, x: Tensor, path: Path) -> Path:  # (*event)
    """One configuration: arrows of the first two components on the last two axes of the lattice."""
    with Canvas(path, "Spins") as (axes,):
        draw_spins(axes, field, x)
    return path


def draw_spins(axes: Axes, field: FieldSpace, x: Tensor) -> None:  # (*event)
    """The content of `configuration`, on axes of your own.

    Angles are coloured by their direction, unit vectors by their third component. A slice where d > 2.
    """
    s = spin_components(field, x[None])[0].cpu().numpy()
    while s.ndim > 3:
        s = s[:, 0]
    plane = s if s.ndim == 3 else s[:, None]
    colour, shown = (plane[2], "coolwarm") if len(plane) > 2 else (np.arctan2(plane[1], plane[0]), "twilight")
    limit = 1.0 if len(plane) > 2 else math.pi
    image = axes.imshow(colour.T, origin="lower", cmap=shown, vmin=-limit, vmax=limit, alpha=0.75)
    rows, columns = np.indices(plane.shape[1:])
    arrows: dict[str, Any] = {
        "pivot": "mid",
        "color": "#222222",
        "scale_units": "xy",
        "angles": "xy",
        "scale": 1.25,
        "width": 0.006,
    }
    axes.quiver(rows, columns, plane[0], plane[1], **arrows)
    axes.figure.colorbar(image, ax=axes, label="s₃" if len(plane) > 2 else "θ")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def energy_histogram(values: Tensor, log_weights: Tensor, indices: Tensor, exact: float | None, path: Path) -> Path:
    """The distribution of E: reweighted samples, the Metropolis chain, and the exact mean where it is known."""
    energy = values.cpu().numpy()
    weights = (log_weights - log_weights.max()).exp().cpu().numpy()
    bins = np.histogram_bin_edges(energy, 50).tolist()
    chain = energy[indices.cpu().numpy()]
    with Canvas(path, "Energy per site") as (axes,):
        axes.hist(energy, bins, weights=weights, density=True, color=COLOURS[0], alpha=0.35, label="flow, reweighted")
        axes.hist(chain, bins, density=True, color=COLOURS[1], histtype="step", lw=1.5, label="flow, Metropolis")
        if exact is not None:
            axes.axvline(exact, color="#555555", lw=1, ls="--", label="exact mean")
        axes.set(xlabel="E", ylabel="density")
        axes.legend(fontsize=8)
    return path
