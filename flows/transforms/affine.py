"""The affine map: the only one whose inverse costs nothing and whose log-det does not see x."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from flows.transforms.elementwise import (
    EVEN,
    ODD,
    ElementwiseTransform,
    Parity,
    check_parameters,
    check_positive,
    soft_clip,
)


def affine(
    x: Tensor, parameters: Tensor, limit: float = 3.0, inverse: bool = False
) -> tuple[Tensor, Tensor]:  # (...), (..., 2) -> (...), (...)
    """Scale and shift every number: y = e^s x + t with |s| < limit.

    s = p₀ / (1 + |p₀| / limit), t = p₁; log|dy/dx| = s. Cost O(V).

    Args:
        x: field values (y when `inverse`), shape (...).
        parameters: unconstrained log-scale and shift, shape (..., 2).
        limit: largest |log-scale|; no single layer can then overflow or collapse a field.
        inverse: apply x = e^{-s} (y - t) instead.

    Symmetries: f(-x; p₀, -p₁) = -f(x; p₀, p₁): the log-scale is even and the shift odd.
    References: Dinh et al. (2016), 1605.08803, section 3.
    """
    check_parameters(x, parameters, 2)
    log_scale, shift = parameters.unbind(-1)
    log_scale = soft_clip(log_scale, limit)
    if inverse:
        return (x - shift) * torch.exp(-log_scale), -log_scale
    return x * torch.exp(log_scale) + shift, log_scale


@final
@dataclass(frozen=True)
class Affine(ElementwiseTransform):
    """The map y = e^s x + t of `affine` as a building block of coupling layers."""

    limit: float = 3.0

    def __post_init__(self) -> None:
        check_positive("limit", self.limit)

    @property
    def parity(self) -> tuple[Parity, ...]:
        """The log-scale is even, the shift odd."""
        return EVEN + ODD

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return affine(x, parameters, self.limit)

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return affine(y, parameters, self.limit, inverse=True)

    @classmethod
    def examples(cls) -> Iterator[Affine]:
        yield cls()
        yield cls(limit=0.5)
