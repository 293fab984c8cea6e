"""What the mixture densities on spheres and tori share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lattices.theories.checks import check_finite


def log_mixture(exponents: Tensor, weights: Sequence[float]) -> Tensor:  # (batch, n) -> (batch,)
    """log Σ_k w_k exp(a_k)."""
    return torch.logsumexp(exponents + exponents.new_tensor(weights).log(), -1)


def rows(name: str, numbers: Sequence[float], width: int) -> list[list[float]]:
    """Finite numbers in rows of this width, at least one; ValueError for anything else."""
    for number in numbers:
        check_finite(name, number)
    if not numbers or len(numbers) % width:
        raise ValueError(
            f"expected {name} in rows of {width} numbers, got {len(numbers)}: write them one after another"
        )
    return [list(map(float, numbers[i : i + width])) for i in range(0, len(numbers), width)]


def check_weights(theory: Any, n: int) -> None:
    """`weights` becomes n positive numbers, all 1 if none were given; `concentration` must be at least 0."""
    weights = tuple(theory.weights) or (1.0,) * n
    for name, value in (("concentration", theory.concentration), *(("weights", w) for w in weights)):
        check_finite(name, value)
    if len(weights) != n or min(weights) <= 0 or theory.concentration < 0:
        raise ValueError(
            f"expected {n} weights > 0 and concentration >= 0, got {weights} and {theory.concentration}: "
            "one weight for each centre"
        )
    object.__setattr__(theory, "weights", tuple(map(float, weights)))


def log_bessel_zero(kappa: float) -> float:
    """log I₀(κ), for any κ ≥ 0."""
    from scipy.special import i0e

    return math.log(i0e(kappa)) + kappa
