"""Roots of increasing functions: how maps without a closed inverse are inverted, with exact derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Increasing = Callable[[Tensor], tuple[Tensor, Tensor]]  # x -> f(x), f'(x) > 0
MAX_STEPS = 300


def increasing_root(function: Increasing, y: Tensor, low: Tensor, high: Tensor) -> Tensor:  # (...) -> (...)
    """The x in [low, high] with f(x) = y, element by element, differentiable in y and in whatever f closes over.

    Newton's steps while they stay in the bracket and halve, bisections otherwise; about eight evaluations for a
    smooth f. The last two steps, x - (f(x) - y) / f'(x), are differentiated: from a root they give all derivatives
    of the implicit function up to the third. NaN gives NaN.

    Args:
        function: f and its derivative at x.
        y: values to reach.
        low: f(low) <= y.
        high: f(high) >= y.

    Raises:
        ArithmeticError: some y is not reached, because f does not increase or its bracket holds no root.
    """
    with torch.no_grad():
        x = _bracketed(function, y, low, high)
    for _ in range(2):
        value, slope = function(x)
        x = x - (value - y) / slope
    return x


def _bracketed(function: Increasing, y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    epsilon, x, last = torch.finfo(y.dtype).eps, (low + high) / 2, high - low
    for _ in range(MAX_STEPS):
        value, slope = function(x)
        above, newton, error = value > y, x - (value - y) / slope, (value - y).abs()
        tolerance = 8 * epsilon * torch.clamp(slope, min=1) * (1 + y.abs())
        settled = (error <= tolerance) | error.isnan() | (high - low <= epsilon * (1 + x.abs()))
        if bool(settled.all()):
            break
        low, high = torch.where(above, low, x), torch.where(above, x, high)
        trusted = (newton >= low) & (newton <= high) & (2 * (newton - x).abs() <= last)
        following = torch.where(settled, x, torch.where(trusted, newton, (low + high) / 2))
        x, last = following, (following - x).abs()
    _require_reached(error, 100 * tolerance)  # rounding in f may leave more than one tolerance
    return x


def _require_reached(error: Tensor, tolerance: Tensor) -> None:
    missed = error > tolerance
    if bool(missed.any()):
        raise ArithmeticError(
            f"expected roots f(x) = y of increasing functions, got {int(missed.sum())} of {error.numel()} values of y "
            f"that are not reached, by up to {float(error[missed].max()):.1e}: check the bracket, f' and the parameters"
        )
