"""Exact draws from the densities of one link or one spin given all others, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

Proposal = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Parameters of any shape, generator -> values, and which of them are rejected, of the same shape."""

_CREUTZ_BELOW = 1.7  # where both methods for SU(2) accept seven out of ten
_AT_ONCE = 512  # proposals that cost no more than the calls that make them


def von_mises(kappa: Tensor, generator: torch.Generator) -> Tensor:  # any shape -> the same shape
    """Angles θ with density ∝ e^{κ cos θ}: the conditional of a U(1) link.

    Proposals are Cauchy variables wrapped on the circle, of density ∝ 1/(r - cos θ). With c = κ (r - cos θ) the
    chance c e^{1-c} <= 1 makes θ exact for any r > 1; at least 66 % are accepted with the r below.

        r = (1 + ρ²) / 2ρ,    ρ = 2κ / √τ (√τ + √2),    τ = 1 + √(1 + 4κ²)

    Args:
        kappa: κ >= 0.

    References:
        D. J. Best, N. I. Fisher, Appl. Statist. 28 (1979) 152.
    """
    return 2 * torch.atan(_rejection(_wrapped_cauchy, _positive(kappa), generator))


def su2_trace(alpha: Tensor, generator: torch.Generator) -> Tensor:  # any shape -> the same shape
    """h in [-1, 1] with density ∝ √(1 - h²) e^{αh}: half the trace of an SU(2) link.

    Kennedy and Pendleton's method, from 1 - h with a Gamma distribution, where α is large; Creutz's, from h with an
    exponential one, where α is small. Both accept 70 % or more where they are used.

    Args:
        alpha: α >= 0.

    References:
        M. Creutz, Phys. Rev. D 21 (1980) 2308; A. D. Kennedy, B. J. Pendleton, Phys. Lett. B 156 (1985) 393.
    """
    alpha = _positive(alpha)
    small, h = alpha < _CREUTZ_BELOW, torch.empty_like(alpha)
    for propose, where in ((_exponential, small), (_gamma, ~small)):
        h[where] = _rejection(propose, alpha[where], generator)
    return h


def von_mises_fisher(h: Tensor, generator: torch.Generator) -> Tensor:  # (..., n) -> (..., n)
    """Unit vectors s in Rⁿ with density ∝ e^{h·s} on the sphere: the conditional of a spin of the O(n) model.

    The height t = s·ĥ has density ∝ (1 - t²)^{(n-3)/2} e^{κt} with κ = |h|, the rest of s is uniform. For n = 2 the
    angle is drawn, for n = 3 the distribution function of t is inverted; else Ulrich's proposals are accepted with
    two thirds or more for all κ. What is drawn is 1 - t, so that nothing cancels at large κ.

    Args:
        h: of any length, zero included; n >= 2.

    References:
        G. Ulrich, Appl. Statist. 33 (1984) 158; A. T. A. Wood, Commun. Statist. Simul. 23 (1994) 157.
    """
    n = h.shape[-1]
    if n < 2:
        raise ValueError(f"expected fields of two or more components, got {n}: a sign is no point of a circle")
    kappa = h.norm(dim=-1)
    if n == 2:
        angle = von_mises(kappa, generator)
        return _turned_to(h, kappa, torch.stack([angle.cos(), angle.sin()], -1))
    propose, positive = partial(_ulrich, n), _positive(kappa)
    gap = _inverted(positive, generator) if n == 3 else _rejection(propose, positive, generator)
    across = torch.randn(*h.shape[:-1], n - 1, generator=generator, dtype=h.dtype, device=h.device)
    across = across * ((gap * (2 - gap)).clamp(min=0).sqrt() / across.norm(dim=-1))[..., None]
    return _turned_to(h, kappa, torch.cat([(1 - gap)[..., None], across], -1))


def categorical(logits: Tensor, generator: torch.Generator) -> Tensor:  # (..., q) -> (...), int64
    """A number k < q with probability ∝ exp(logits_k) for each row, by its distribution function."""
    levels = logits.softmax(-1).cumsum(-1)[..., :-1]
    shape = (*levels.shape[:-1], 1)
    return (torch.rand(shape, generator=generator, dtype=levels.dtype, device=levels.device) > levels).sum(-1)


def _rejection(propose: Proposal, parameters: Tensor, generator: torch.Generator) -> Tensor:
    """One accepted value for every parameter; NaN is never rejected, so that it cannot wait forever."""
    flat = parameters.flatten()
    values, pending = torch.empty_like(flat), torch.arange(len(flat), device=flat.device)
    while len(pending):
        n_tries = 1 + _AT_ONCE // len(pending)  # a few stragglers try often in one round
        proposed, rejected = propose(flat[pending].expand(n_tries, -1), generator)
        values[pending] = proposed.gather(0, rejected.byte().argmin(0, keepdim=True)).squeeze(0)
        pending = pending[rejected.all(0)]
    return values.reshape(parameters.shape)


def _wrapped_cauchy(kappa: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """tan θ/2."""
    u, v = _uniform(2, kappa, generator)
    root = (1 + (1 + 4 * kappa.square()).sqrt()).sqrt()
    rho = 2 * kappa / (root * (root + math.sqrt(2)))
    tangent = (1 - rho) / (1 + rho) * torch.tan(math.pi * (u - 0.5))
    square = tangent.square()
    c = kappa * ((1 - rho).square() / (2 * rho) + 2 * square / (1 + square))
    return tangent, v > c * torch.exp(1 - c)


def _exponential(alpha: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """h from the exponential distribution on [-1, 1]."""
    u, v = _uniform(2, alpha, generator)
    h = torch.log1p(u * torch.expm1(2 * alpha)) / alpha - 1
    return h, v.square() > 1 - h.square()


def _gamma(alpha: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """1 - h from Gamma(3/2, 1/α): the sum of an exponential variable and half the square of a normal one."""
    u, v, w, z = _uniform(4, alpha, generator)
    gap = -(u.log() + torch.cos(2 * math.pi * v).square() * w.log()) / alpha
    return 1 - gap, z.square() > 1 - gap / 2


def _inverted(kappa: Tensor, generator: torch.Generator) -> Tensor:
    """1 - t with t from the exponential distribution on [-1, 1]."""
    u = torch.rand(kappa.shape, generator=generator, dtype=kappa.dtype, device=kappa.device)
    return -torch.log1p(u * torch.expm1(-2 * kappa)) / kappa


def _ulrich(n: int, kappa: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """1 - t from the projected Beta distribution, the height of a uniform unit vector moved towards one pole."""
    v = torch.randn(n, *kappa.shape, generator=generator, dtype=kappa.dtype, device=kappa.device)
    z = (1 - v[0] / v.norm(dim=0)) / 2
    b = (n - 1) / (2 * kappa + torch.hypot(2 * kappa, kappa.new_tensor(n - 1.0)))
    gap = 2 * b * z / (1 - (1 - b) * z)
    excess = gap - 2 * b / (1 + b)  # over that of the likeliest acceptance
    log_chance = (n - 1) * torch.log1p((1 - b * b) / (4 * b) * excess) - kappa * excess
    return gap, _uniform(1, kappa, generator)[0].log() > log_chance


def _turned_to(h: Tensor, kappa: Tensor, s: Tensor) -> Tensor:  # (..., n), (...), (..., n) -> (..., n)
    """s after the rotation or reflection, Householder's, that takes the first axis to ĥ; if h = 0, to itself."""
    first = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)[0]
    axis = torch.where((kappa > 0)[..., None], h / kappa[..., None], first)
    sign = torch.where(axis[..., :1] < 0, -1, 1)
    w = sign * axis + first
    turned = sign * (w * (w * s).sum(-1, keepdim=True) / w[..., :1] - s)
    return turned / turned.norm(dim=-1, keepdim=True)


def _uniform(n: int, like: Tensor, generator: torch.Generator) -> Tensor:  # -> (n, *like), in (0, 1]
    return 1 - torch.rand(n, *like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _positive(x: Tensor) -> Tensor:
    """Zero becomes the smallest number that matters."""
    return x.clamp(min=torch.finfo(x.dtype).eps)
