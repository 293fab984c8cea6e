"""IntegratedFlow: what every flow that solves an ordinary differential equation shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import TypeVar

import torch
from torch import Tensor, nn

from flows.bijection import Bijection, Scored
from flows.context import checked_context

State = TypeVar("State")


class IntegratedFlow(Bijection):
    """x = φ(1), the solution of an equation dφ/dt = v(φ, t; θ, J) that is linear in θ; φ(0) = z.

    θ has the axes (monomial of the couplings J, Legendre polynomial of time, …), zero θ is the identity, and the
    divergence of v is known in closed form: log|det| is exact up to the integration error, which is measured.
    """

    theta: nn.Parameter
    n_steps: int
    method: str

    @abstractmethod
    def refined(self, n_steps: int, method: str | None = None) -> IntegratedFlow:
        """The same flow with the same parameters (shared), integrated with other steps or another method."""

    @abstractmethod
    def push_tangents(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> tuple[Scored, Tensor]:
        """`push_score`, and the tangents ∂_θ log q(x) at fixed x, (batch, n_parameters), by `tangents_along`.

        Per sample and without a backward pass: what `NaturalGradient` lives on.
        """

    @torch.no_grad()
    def integration_error(
        self, z: Tensor, context: Tensor | None = None, log_prob: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:  # (batch, *event) -> (batch,)
        """How far log q(x) at x = f(z) is from that of the flow with doubled steps at the same x: |error| in nats.

        Args:
            log_prob: the density of z; None stands for the reference measure. The end point moves with the steps
                too, and only at equal x, with the density that is used, do the two effects cancel as they should.
        """
        log_prob = log_prob or (lambda latent: latent.real.new_zeros(len(latent)))
        x, log_det = self(z, context)
        back, back_log_det = self.refined(2 * self.n_steps).inverse(x, context)
        return (log_prob(z) - log_det - log_prob(back) - back_log_det).abs()


def tangents_along(
    flow: IntegratedFlow,
    columns: Tensor,
    start: State,
    advance: Callable[[State, float, float], State],
    stein: Callable[[State], Tensor],
) -> tuple[State, Tensor]:
    """The end of a path x_t with score s_t, and the tangents at fixed end, (batch, n_parameters) in the order of θ,

        ∂_θ log q(x) = -∫ dt [div ∂_θ v + ⟨s, ∂_θ v⟩](x_t),

    by the trapezoidal rule on the steps: an error O(h²) that steers training and never enters a density.

    Args:
        columns: monomials of the couplings, (1 or batch, n_monomials).
        start: whatever describes the path at t = 0.
        advance: (state, t, h) -> the state at t + h.
        stein: div v_k + ⟨s, v_k⟩ of the elementary velocities in a state, (batch, *terms).
    """
    h, state, total = 1 / flow.n_steps, start, torch.zeros(())
    for step in range(flow.n_steps + 1):
        values, weight = stein(state), h / 2 if step in (0, flow.n_steps) else h
        basis = values.new_tensor(legendre(step * h, flow.theta.shape[1]))
        total = total.to(values) - weight * torch.einsum("t,b...->bt...", basis, values)
        if step < flow.n_steps:
            state = advance(state, step * h, h)
    tangents = torch.einsum("bm,bt...->bmt...", columns.expand(len(total), -1), total)
    return state, tangents.flatten(1)


def legendre(t: float, n: int) -> list[float]:
    """The Legendre polynomials P_0 … P_{n-1} at 2t - 1."""
    u, values = 2 * t - 1, [1.0, 2 * t - 1]
    for k in range(1, n):
        values.append(((2 * k + 1) * u * values[k] - k * values[k - 1]) / (k + 1))
    return values[:n]


def monomials(n_context: int, degree: int) -> list[tuple[int, ...]]:
    """The products of couplings up to a degree, by index; the first is 1, and the only one without couplings."""
    degrees = range(degree + 1 if n_context else 1)
    return [m for k in degrees for m in combinations_with_replacement(range(n_context), k)]


def context_columns(context: Tensor | None, n_context: int, degree: int, like: Tensor) -> Tensor:
    """The monomials of the couplings: (1 or batch, n_monomials)."""
    if not n_context:
        return like.new_ones(1, 1)
    context = checked_context(context, n_context)
    ones = context.new_ones(len(context))
    return torch.stack([context[:, list(m)].prod(1) if m else ones for m in monomials(n_context, degree)], 1)
