"""Pictures of densities on spheres and tori: the target and what samples make of it, next to each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flows.plots import COLOURS, Canvas
from lattices.action import Action
from lattices.fields import Sphere

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS = 60


def density(action: Action, points: Tensor, log_weights: Tensor, path: Path) -> Path:  # (n, numbers), (n,)
    """exp(-S) and the reweighted samples as maps of S² (longitude and height, which keep areas) or T²; else marginals.

    Args:
        points: coordinates of the samples, on a sphere those of the unit vector.
        log_weights: of the samples.
    """
    weights = (log_weights - log_weights.max()).exp().cpu().numpy()
    flat = _chart(action, points).cpu().numpy()
    if flat.shape[1] != 2:
        return _marginals(flat, weights, path)
    ranges = [(-math.pi, math.pi), (-1.0, 1.0) if isinstance(action.field.target, Sphere) else (-math.pi, math.pi)]
    samples = np.histogram2d(flat[:, 0], flat[:, 1], CELLS, np.array(ranges), True, weights)[0]
    cells = [np.linspace(low, high, CELLS, endpoint=False) + (high - low) / (2 * CELLS) for low, high in ranges]
    target = _target(action, *map(torch.from_numpy, cells))
    with Canvas(path, "Density", n_axes=2) as panels:
        for axes, values, title in zip(panels, (target, samples), ("target", "samples, reweighted")):
            _map(axes, values, ranges, title)
            axes.images[0].set_clim(0, float(target.max()))
    return path


def _chart(action: Action, points: Tensor) -> Tensor:  # (n, numbers) -> (n, D) on circles and S², else the same
    """Angles of tori and circles; longitude and height on S²."""
    if isinstance(action.field.target, Sphere) and points.shape[1] <= 3:
        longitude = torch.atan2(points[:, 1], points[:, 0])
        return torch.stack([longitude, *points[:, 2:].unbind(1)], 1)
    return points


def _target(action: Action, first: Tensor, second: Tensor) -> np.ndarray:  # -> (CELLS, CELLS)
    """exp(-S) on a grid of the chart, normalised in the chart."""
    points = torch.cartesian_prod(first, second)
    if isinstance(action.field.target, Sphere):
        across = (1 - points[:, 1] ** 2).sqrt()
        points = torch.stack([across * points[:, 0].cos(), across * points[:, 0].sin(), points[:, 1]], 1)
    log_density = -action.energy(points.reshape(-1, *action.field.event_shape))
    area = float((first[1] - first[0]) * (second[1] - second[0]))
    return (log_density.softmax(0) / area).reshape(len(first), len(second)).numpy()


def _map(axes: Axes, values: np.ndarray, ranges: list[tuple[float, float]], title: str) -> None:
    extent = (*ranges[0], *ranges[1])
    image = axes.imshow(values.T, origin="lower", extent=extent, aspect="auto", cmap="viridis", vmin=0)
    axes.figure.colorbar(image, ax=axes)
    height = ranges[1][1] == 1.0
    axes.set(title=title, xlabel="longitude" if height else "t₁", ylabel="height x₃" if height else "t₂")
    axes.grid(False)


def _marginals(flat: np.ndarray, weights: np.ndarray, path: Path) -> Path:
    """Histograms of up to four coordinates."""
    shown = flat.T[:4]
    with Canvas(path, "Samples, reweighted", n_axes=len(shown)) as panels:
        for axes, values, number in zip(panels, shown, "₁₂₃₄"):
            axes.hist(values, bins=60, weights=weights, density=True, color=COLOURS[0], alpha=0.5)
            axes.set(xlabel=f"coordinate {number}", ylabel="density")
    return path
