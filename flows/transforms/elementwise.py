"""What a coupling layer has to know of an invertible map that acts on every number by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

Parity = Literal["even", "odd"]
EVEN: tuple[Parity, ...] = ("even",)
ODD: tuple[Parity, ...] = ("odd",)


class ElementwiseTransform(ABC):
    """A monotone map y_i = f(x_i; p_i) of single numbers, with as many parameters p_i for each of them.

    Concrete transforms are frozen dataclasses: they hold sizes and limits, never tensors, and the parameters
    arrive as one unconstrained tensor with the parameter axis last; p = 0 is the identity.

    Shape: x and y (...), parameters (..., n_parameters), log|dy/dx| (...); cost O(V n_parameters).
    Symmetries: f(-x; even, -odd) = -f(x; even, odd), where `parity` says which parameter is which. A layer is
    Z2-equivariant when its even parameters are even functions of the frozen field and its odd ones odd.
    """

    @property
    @abstractmethod
    def parity(self) -> tuple[Parity, ...]:
        """Sign of each parameter under x -> -x, y -> -y."""

    @property
    def n_parameters(self) -> int:
        """Length of the last axis of `parameters`."""
        return len(self.parity)

    @abstractmethod
    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return y = f(x) and log|dy/dx|, both element by element."""

    @abstractmethod
    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return x = f⁻¹(y) and log|dx/dy|, both element by element."""

    @classmethod
    @abstractmethod
    def examples(cls) -> Iterator[ElementwiseTransform]:
        """Yield small instances: documentation first, test data second."""


def soft_clip(u: Tensor, limit: float) -> Tensor:
    """Odd monotone limiter u / (1 + |u|/c): it is u near zero and stays inside (-c, c)."""
    return u / (1 + u.abs() / limit)


def check_parameters(x: Tensor, parameters: Tensor, n_parameters: int) -> None:
    """Raise unless every element of x has its own `n_parameters` numbers, of the same dtype."""
    expected = (*x.shape, n_parameters)
    if parameters.shape != expected:
        raise ValueError(
            f"expected parameters of shape {expected} for x of shape {tuple(x.shape)}, got "
            f"{tuple(parameters.shape)}: move the parameter axis to the end and expand the others"
        )
    if parameters.dtype != x.dtype:
        raise TypeError(f"expected parameters of x's dtype {x.dtype}, got {parameters.dtype}: cast with .to(x.dtype)")


def check_spline(n_bins: int, bound: float) -> None:
    """Raise unless there are at least two bins and the interval is a positive finite one."""
    if isinstance(n_bins, bool) or not isinstance(n_bins, int):
        raise TypeError(f"expected an integer n_bins, got {n_bins!r}: pass 8, say")
    if n_bins < 2:
        raise ValueError(f"expected n_bins >= 2, got {n_bins}: one bin alone is the identity")
    check_positive("bound", bound)


def check_positive(name: str, value: float) -> None:
    """Raise unless 0 < value < infinity."""
    if not 0 < value < float("inf"):
        raise ValueError(f"expected a positive finite {name}, got {value!r}: pass 5.0, say")


def from_parity(lists: Tensor) -> Tensor:  # (..., n) -> (..., n)
    """Read even, then odd numbers as a list whose reversal flips the sign of the odd ones.

    (e₁ … e_m, o₁ … o_k) -> (e₁ + o₁ … e_k + o_k, [e_m,] e_k - o_k … e₁ - o₁), with [e_m] present when m > k.
    Knots of a spline are such lists: x -> -x reverses them.
    """
    size, half = lists.shape[-1], lists.shape[-1] // 2
    even, middle, odd = lists.split((half, size - 2 * half, half), -1)
    return torch.cat((even + odd, middle, (even - odd).flip(-1)), -1)


def list_parity(size: int) -> tuple[Parity, ...]:
    """Return the parities of the numbers that `from_parity` reads."""
    return EVEN * (size - size // 2) + ODD * (size // 2)
