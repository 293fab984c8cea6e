"""Moderators: smooth maps of couplings, the identity at the start, with exact Jacobians."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class GradientFlow(nn.Module):
    """The gradient step of a learned monotone: M(J) = J - ∇C(J), so ∂M/∂J is symmetric with real eigenvalues.

        C(J) = σ² [c(u) + a·u + ½ u·S u],    u = (J - J₀)/σ,

    with c a network of tanh layers; all parts start at zero, and M at the identity.

    C decreases along short steps and is stationary at fixed points: it is the monotone of the renormalization
    group, assumed to exist. `SmoothMap` assumes nothing. Cost: one backward pass through the network.

    Args:
        n_couplings: number n of couplings.
        centre: J₀ (n,), the middle of the region to be learned.
        scale: σ (n,) or one number, its half width; positive.
        hidden: widths of the tanh layers.
        generator: draws the first weights.
    Shape: (batch, n) -> (batch, n).
    References: W. Hou, Y.-Z. You, arXiv:2306.11054 (2023).
    """

    centre: Tensor
    scale: Tensor
    drift: Tensor
    drift_slope: Tensor

    def __init__(
        self,
        n_couplings: int,
        centre: Tensor,
        scale: Tensor,
        hidden: Sequence[int] = (32, 32),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _register_region(self, n_couplings, centre, scale)
        self.network = _flat_network((n_couplings, *hidden, 1), self.centre, generator)
        _add_drift(self, n_couplings)

    def forward(self, J: Tensor) -> Tensor:  # (batch, n) -> (batch, n)
        """J - ∇C(J); differentiable in the weights, and in J where J requires a gradient."""
        with torch.enable_grad():
            at = J if J.requires_grad else J.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.monotone(at).sum(), at, create_graph=True)
        return J - (slope if torch.is_grad_enabled() else slope.detach())

    def monotone(self, J: Tensor) -> Tensor:  # (batch, n) -> (batch,)
        """The monotone C(J), zero at the centre."""
        u = (J - self.centre) / self.scale
        c = (self.network(u) - self.network(torch.zeros_like(u))).squeeze(-1)
        quadratic = u @ self.drift + 0.5 * ((u @ self.drift_slope) * u).sum(-1)
        return self.scale.square().mean() * (c + quadratic)

    def jacobian(self, J: Tensor) -> Tensor:  # (batch, n) -> (batch, n, n)
        """∂M_i/∂J_j = δ_ij - ∂²C/∂J_i∂J_j."""
        return _jacobian(self, J)


class SmoothMap(nn.Module):
    """An unconstrained smooth map of couplings, the identity at the start.

        M(J) = J + σ [m(u) + a + S u],    u = (J - J₀)/σ

    Takes the arguments of `GradientFlow`; needs no monotone to exist and has none.

    Shape: (batch, n) -> (batch, n).
    """

    centre: Tensor
    scale: Tensor
    drift: Tensor
    drift_slope: Tensor

    def __init__(
        self,
        n_couplings: int,
        centre: Tensor,
        scale: Tensor,
        hidden: Sequence[int] = (32, 32),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _register_region(self, n_couplings, centre, scale)
        self.network = _flat_network((n_couplings, *hidden, n_couplings), self.centre, generator)
        _add_drift(self, n_couplings)

    def forward(self, J: Tensor) -> Tensor:  # (batch, n) -> (batch, n)
        """The new couplings."""
        u = (J - self.centre) / self.scale
        return J + self.scale * (self.network(u) + self.drift + u @ self.drift_slope)

    def jacobian(self, J: Tensor) -> Tensor:  # (batch, n) -> (batch, n, n)
        """∂M_i/∂J_j."""
        return _jacobian(self, J)


def _register_region(module: nn.Module, n: int, centre: Tensor, scale: Tensor) -> None:
    if not isinstance(n, int) or n < 1 or tuple(centre.shape) != (n,):
        raise ValueError(f"expected n_couplings >= 1 and a centre of that length, got {n} and {tuple(centre.shape)}")
    if not bool((torch.as_tensor(scale) > 0).all()):
        raise ValueError(f"expected a positive scale, got {scale}: pass the half width of the region of couplings")
    module.register_buffer("centre", centre.detach().clone())
    module.register_buffer("scale", torch.as_tensor(scale).to(centre).detach().expand(n).clone())


def _add_drift(module: nn.Module, n: int) -> None:
    """The affine part of a map, a and S: what a fit leaves unpenalised, so that networks only have to bend it."""
    like = module.get_buffer("centre")
    module.drift = nn.Parameter(like.new_zeros(n))
    module.drift_slope = nn.Parameter(like.new_zeros(n, n))


def _flat_network(widths: Sequence[int], like: Tensor, generator: torch.Generator | None) -> nn.Sequential:
    """Tanh layers with random weights, and a last linear layer that starts at zero."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        linear = nn.Linear(n_in, n_out, dtype=like.dtype, device=like.device)
        with torch.no_grad():
            linear.weight.normal_(0, n_in**-0.5, generator=generator)
            linear.bias.uniform_(-1, 1, generator=generator)
        layers += [linear, nn.Tanh()]
    nn.init.zeros_(layers[-2].weight)  # type: ignore[arg-type]
    nn.init.zeros_(layers[-2].bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers[:-1])


def _jacobian(module: nn.Module, J: Tensor) -> Tensor:
    with torch.enable_grad():
        rows = torch.autograd.functional.jacobian(lambda at: module(at).sum(0), J.detach())
    return rows.transpose(0, 1)
