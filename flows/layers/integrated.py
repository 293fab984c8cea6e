"""IntegratedFlow: what every flow that solves an ordinary differential equation shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

from flows.bijection import Bijection, Scored
from flows.context import checked_context


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
        """`push_score`, and the tangents ∂_θ log q(x) at fixed x: (batch, n_parameters)."""

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
