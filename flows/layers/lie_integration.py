"""Runge–Kutta–Munthe-Kaas methods: explicit steps for links in a group, which never leave it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from flows.layers.integration import Fields, Tableau, tableau
from lattices.fields import FieldSpace

LieRates = Callable[[float, Tensor, Fields], tuple[Tensor, Fields]]
"""(t, U, vectors) ↦ (v, rates): U̇ = v U with v in the algebra, and the rates of the vectors that ride along."""

INVERSE_DEXP = ((1, -1 / 2), (2, 1 / 12), (4, -1 / 720), (6, 1 / 30240))
"""Bernoulli numbers over factorials, as far as a method of order 8 needs them."""


def integrate_links(
    field: FieldSpace, rates: LieRates, start: tuple[Tensor, Fields], times: tuple[float, float],
    steps: tuple[int, str], checkpointed: bool = False,
) -> tuple[Tensor, Fields]:  # fmt: skip
    """Solve U̇ = v(t, U) U, and ẏ = r(t, U, y) for the vectors y, in equal steps.

    In a step U = exp(u) U_0 with u̇ = dexp_u⁻¹ v = v - ½[u, v] + [u, [u, v]]/12 - …, and u is stepped like a vector.

    Args:
        steps: (n_steps, method), as in `integration.integrate`.
        checkpointed: keep the fields between the steps alone for a backward pass, and compute each step twice: memory
            for one step instead of n_steps.
    References: Munthe-Kaas 1999, Appl. Numer. Math. 29, 115.
    """
    n_steps, method = steps
    scheme, (u, vectors) = tableau(method), start
    h = (times[1] - times[0]) / n_steps
    for step in range(n_steps):
        arguments = (field, rates, scheme, times[0] + step * h, (u, vectors), h)
        if checkpointed and torch.is_grad_enabled():
            u, vectors = checkpoint(_step, *arguments, use_reentrant=False)
        else:
            u, vectors = _step(*arguments)
    return u, vectors


def _step(
    field: FieldSpace, rates: LieRates, scheme: Tableau, t: float, start: tuple[Tensor, Fields], h: float
) -> tuple[Tensor, Fields]:
    link, vectors = start
    slopes: list[Fields] = []
    for row, c in zip(scheme.a, scheme.c):
        shift, ridden = _combined(vectors, slopes, row, h)
        v, rate = rates(t + c * h, link if shift is None else field.exp(link, shift), ridden)
        slopes.append((v if shift is None else _inverse_dexp(field, shift, v, scheme.order), *rate))
    shift, ridden = _combined(vectors, slopes, scheme.b, h)
    return link if shift is None else field.exp(link, shift), ridden


def _combined(
    vectors: Fields, slopes: list[Fields], weights: tuple[float, ...], h: float
) -> tuple[Tensor | None, Fields]:
    """h Σ weights·(algebra slopes), and the vectors moved by theirs."""
    shift: Tensor | None = None
    for weight, (first, *others) in zip(weights, slopes):
        if weight:
            shift = h * weight * first if shift is None else shift + h * weight * first
            vectors = tuple(y + h * weight * k for y, k in zip(vectors, others))
    return shift, vectors


def _inverse_dexp(field: FieldSpace, u: Tensor, v: Tensor, order: int) -> Tensor:
    """Σ_k B_k/k! ad_u^k v, up to the power that a method of this order needs."""
    if not field.target.shape:
        return v
    total, nested = v, v
    coefficients = dict(INVERSE_DEXP)
    for power in range(1, order - 1):
        nested = commutator(u, nested)
        if power in coefficients:
            total = total + coefficients[power] * nested
    return total


def commutator(u: Tensor, v: Tensor) -> Tensor:
    """[u, v] = u v - v u."""
    return u @ v - v @ u
