"""Sums over neighbouring sites, for fields (batch, *extents) on a periodic lattice."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import combinations, product

import torch
from torch import Tensor

Displacement = tuple[tuple[int, ...], tuple[int, ...]]  # how far, along which axes


def axial(dimension: int) -> list[Displacement]:
    """The d unit vectors: one for each pair of nearest neighbours."""
    return [((1,), (axis,)) for axis in range(-dimension, 0)]


def diagonal(dimension: int) -> list[Displacement]:
    """μ̂ ± ν̂ for μ < ν: one for each pair of next-nearest neighbours, d (d - 1) in all."""
    return [((1, sign), axes) for axes, sign in product(combinations(range(-dimension, 0), 2), (1, -1))]


def forward_sum(x: Tensor, displacements: list[Displacement]) -> Tensor:  # (batch, *extents) -> the same
    """Σ_δ x(s + δ)."""
    return _add((x.roll([-n for n in steps], axes) for steps, axes in displacements), x)


def neighbour_sum(x: Tensor, displacements: list[Displacement]) -> Tensor:  # (batch, *extents) -> the same
    """Σ_δ x(s + δ) + x(s - δ)."""
    return _add((x.roll([sign * n for n in steps], axes) for steps, axes in displacements for sign in (-1, 1)), x)


def square_differences(x: Tensor, displacements: list[Displacement]) -> Tensor:  # (batch, *extents) -> the same
    """Σ_δ (x(s + δ) - x(s))², the bonds that start at s."""
    return _add(((x.roll([-n for n in steps], axes) - x).square() for steps, axes in displacements), x)


def _add(terms: Iterator[Tensor], like: Tensor) -> Tensor:
    """The sum, one term in memory at a time; zeros like `like` if there is none."""
    first = next(terms, None)
    return torch.zeros_like(like) if first is None else reduce(torch.add, terms, first)
