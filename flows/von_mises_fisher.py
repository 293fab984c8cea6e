"""The normalisation of e^{h·s} on spheres, smooth in h also at h = 0, with derivatives of every order."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_SERIES_BELOW = 20.0  # of κ - n: where the continued fraction has converged
_DEPTH = 40


def log_normaliser(n: int, squared: Tensor) -> Tensor:  # (...) -> (...)
    """log ∫ e^{h·s} ds over the unit sphere of Rⁿ, n ≥ 2, as a function of u = |h|².

        λ_n = (2π)^{n/2} I_{n/2-1}(κ) / κ^{n/2-1},   κ = √u,   ∂_u log λ_n = r_n/2

    Args:
        n: components of s.
        squared: u ≥ 0.
    """
    return _LogNormaliser.apply(squared, n)


def mean_over_field(n: int, squared: Tensor) -> Tensor:  # (...) -> (...)
    """r_n = A_n(κ)/κ, where A_n = I_{n/2}/I_{n/2-1} and ⟨s⟩ = r_n h: 1/n at h = 0.

    It obeys r_n = 1/(n + u r_{n+2}), hence ∂_u r_n = (r_{n+2} - r_n) r_n / 2.

    References: Amos 1974, Math. Comp. 28, 239 (the continued fraction).
    """
    return _MeanOverField.apply(squared, n)


class _MeanOverField(Function):
    @staticmethod
    def forward(ctx: Any, squared: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(squared)
        ctx.n = n
        small = squared.clamp(max=(n + _SERIES_BELOW) ** 2)
        return torch.where(squared <= small, _continued_fraction(n, small), _upward(n, squared))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (squared,) = ctx.saved_tensors
        own, next_one = mean_over_field(ctx.n, squared), mean_over_field(ctx.n + 2, squared)
        return gradient * own * (next_one - own) / 2, None


class _LogNormaliser(Function):
    @staticmethod
    def forward(ctx: Any, squared: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(squared)
        ctx.n = n
        m, kappa = 2 + n % 2, squared.sqrt()
        if m == 2:
            total = math.log(2 * math.pi) + torch.log(torch.special.i0e(kappa)) + kappa
        else:
            safe = kappa.clamp(min=1e-6)
            total = math.log(2 * math.pi) + torch.log(-torch.expm1(-2 * safe) / safe) + safe
        for k in range(m, n, 2):  # λ_{n+2} = 2π r_n λ_n
            total = total + torch.log(2 * math.pi * mean_over_field(k, squared))
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (squared,) = ctx.saved_tensors
        return gradient * mean_over_field(ctx.n, squared) / 2, None


def _continued_fraction(n: int, squared: Tensor) -> Tensor:
    value = torch.full_like(squared, 1 / (n + 2 * _DEPTH))
    for k in reversed(range(_DEPTH)):
        value = 1 / (n + 2 * k + squared * value)
    return value


def _upward(n: int, squared: Tensor) -> Tensor:
    """A_{n+2} = 1/A_n - n/κ, stable for κ well above n."""
    kappa = squared.clamp(min=1.0).sqrt()
    k = 2 + n % 2
    a = torch.special.i1e(kappa) / torch.special.i0e(kappa) if k == 2 else 1 / torch.tanh(kappa) - 1 / kappa
    for m in range(k, n, 2):
        a = 1 / a - m / kappa
    return a / kappa
