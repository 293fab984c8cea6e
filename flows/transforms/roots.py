"""Roots of increasing functions: how maps without a closed inverse are inverted, with exact first derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Increasing = Callable[[Tensor], tuple[Tensor, Tensor]]  # x -> f(x), f'(x) > 0
MAX_STEPS = 300


def increasing_root(function: Increasing, y: Tensor, low: Tensor, high: Tensor) -> Tensor:  # (...) -> (...)
    """The x in [low, high] with f(x) = y, element by element, differentiable in y and in whatever f closes over.

    Newton's steps while they stay in the bracket and halve, bisections otherwise, so that it cannot fail; about eight
    evaluations for a smooth f. The last step, x - (f(x) - y) / f'(x) with f' detached, is differentiated: it gives the
    derivatives of the implicit function theorem, of first order.

    Args:
        function: f and its derivative at x.
        y: values to reach.
        low: f(low) <= y.
        high: f(high) >= y.
    """
    with torch.no_grad():
        x = _bracketed(function, y, low, high)
    value, slope = function(x)
    return x - (value - y) / slope.detach()


def _bracketed(function: Increasing, y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    x, tolerance, last = (low + high) / 2, 8 * torch.finfo(y.dtype).eps, high - low
    for _ in range(MAX_STEPS):
        value, slope = function(x)
        above, newton = value > y, x - (value - y) / slope
        settled = (value - y).abs() <= tolerance * torch.clamp(slope, min=1) * (1 + y.abs())
        if bool(settled.all()):
            return x
        low, high = torch.where(above, low, x), torch.where(above, x, high)
        trusted = (newton >= low) & (newton <= high) & (2 * (newton - x).abs() <= last)
        following = torch.where(settled, x, torch.where(trusted, newton, (low + high) / 2))
        x, last = following, (following - x).abs()
    return x
