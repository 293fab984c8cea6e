"""Pictures of densities on spheres and tori: a target and what a flow makes of it, and fits to points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flows.distribution import Distribution
from flows.maps import Panel, has_map, normalised, pairwise, side_by_side
from flows.plots import COLOURS, Canvas
from lattices.action import Action

SHOWN = 3000
"""Points in one map."""


def density(action: Action, points: Tensor, log_weights: Tensor, path: Path) -> Path:  # (n, numbers), (n,)
    """exp(-S) as a map of S² or T² beside samples of it; else marginals of the samples, as they are and reweighted.

    Args:
        points: coordinates of the samples, on a sphere those of the unit vector.
        log_weights: of the samples.
    """
    field, weights = action.field, (log_weights - log_weights.max()).exp().cpu().double()
    x = points.reshape(-1, *field.event_shape)
    if not has_map(field):
        return pairwise(field, [("samples", x, None), ("reweighted", x, weights)], path, "Samples")
    drawn = np.random.default_rng(0).choice(len(x), min(SHOWN, len(x)), p=(weights / weights.sum()).numpy())
    target = Panel("target", normalised(field, lambda y: -action.energy(y)))
    return side_by_side(field, [target, Panel("samples, reweighted", points=x.cpu()[drawn])], path)


def compare(flow: Distribution, action: Action, path: Path) -> Path | None:
    """Maps of exp(-S) and of the density of a flow; None, and nothing drawn, unless on S² or T²."""
    if not has_map(action.field):
        return None
    target = Panel("target", normalised(action.field, lambda x: -action.energy(x)))
    return side_by_side(action.field, [target, Panel("model", flow.log_prob)], path)


def fitted(flow: Distribution, points: Tensor, path: Path) -> Path:  # (n, *event)
    """A density fitted to points, beside the points: maps of S² and T², else marginals."""
    field = flow.field
    if has_map(field):
        return side_by_side(field, [Panel("model", flow.log_prob), Panel("data", points=points[:SHOWN])], path)
    generator = torch.Generator(points.device).manual_seed(0)
    with torch.no_grad():
        x = flow.sample(len(points), generator=generator)
    return pairwise(field, [("model", x, None), ("data", points, None)], path, "Model and data")


def likelihoods(history: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """The mean log-likelihood of the points a fit learns from, and of those held out, against the number of updates."""
    accepted = [record for record in history if record["loss"] is not None]
    before, after = [record["step"] - 1 for record in accepted], [record["step"] for record in accepted]
    errors = [record["held_out_error"] for record in accepted]
    with Canvas(path, "Fit") as (axes,):
        axes.plot(before, [-record["loss"] for record in accepted], ".-", color=COLOURS[0], label="learned from")
        style: dict[str, Any] = {"color": COLOURS[1], "marker": "o", "ms": 4, "capsize": 2, "lw": 1}
        axes.errorbar(after, [record["held_out"] for record in accepted], errors, label="held out", **style)
        axes.set(xlabel="update", ylabel="mean log-likelihood of a point")
        axes.legend()
    return path
