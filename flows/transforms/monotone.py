"""An odd monotone map with power-law tails, closed form in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from flows.transforms.elementwise import (
    EVEN,
    ElementwiseTransform,
    Parity,
    check_parameters,
    check_positive,
    soft_clip,
)

_LOG_POWER = math.log(3.0)


def odd_monotone(
    x: Tensor, parameters: Tensor, limit: float = 3.0, inverse: bool = False
) -> tuple[Tensor, Tensor]:  # (...), (..., 3) -> (...), (...)
    """Stretch the centre and the tails of an even density differently: y = e^s c sinh(k arcsinh(x / c)).

    Slope k e^s for |x| << c and y ~ |x|^k for |x| >> c, so k = 1/2 turns a Gaussian tail into that of
    exp(-λ φ⁴). Against `odd_spline`: three parameters, smooth everywhere, acts on the tails.
    log|dy/dx| = s + log k + log cosh(k t) - log cosh(t), t = arcsinh(x / c). Cost O(V).

    Args:
        x: field values (y when `inverse`), shape (...).
        parameters: unconstrained s, log c (|.| < limit) and log k (1/3 < k < 3), shape (..., 3).
        limit: largest |s| and |log c|.
        inverse: apply x = c sinh(arcsinh(e^{-s} y / c) / k) instead.

    Symmetries: Z2, f(-x; p) = -f(x; p).
    References: Jones and Pewsey (2009), Biometrika 96, 761 (its symmetric case).
    """
    check_parameters(x, parameters, 3)
    log_scale, log_width, log_power = parameters.unbind(-1)
    log_scale, width = soft_clip(log_scale, limit), torch.exp(soft_clip(log_width, limit))
    log_power = soft_clip(log_power, _LOG_POWER)
    if inverse:
        return _bend(x * torch.exp(-log_scale), width, -log_power, -log_scale)
    y, log_det = _bend(x, width, log_power, log_scale)
    return y * torch.exp(log_scale), log_det


def _bend(x: Tensor, width: Tensor, log_power: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return c sinh(k arcsinh(x / c)) and its log-derivative, plus the log of a further constant scale."""
    t = torch.asinh(x / width)
    bent = torch.exp(log_power) * t
    log_det = log_scale + log_power + torch.logaddexp(bent, -bent) - torch.logaddexp(t, -t)
    return width * torch.sinh(bent), log_det


@final
@dataclass(frozen=True)
class OddMonotone(ElementwiseTransform):
    """The map of `odd_monotone` as a building block: Z2-equivariant if its parameters are invariant."""

    limit: float = 3.0

    def __post_init__(self) -> None:
        check_positive("limit", self.limit)

    @property
    def parity(self) -> tuple[Parity, ...]:
        """All three parameters are even."""
        return 3 * EVEN

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return odd_monotone(x, parameters, self.limit)

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return odd_monotone(y, parameters, self.limit, inverse=True)

    @classmethod
    def examples(cls) -> Iterator[OddMonotone]:
        yield cls()
        yield cls(limit=1.0)
