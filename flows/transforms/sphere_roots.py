"""Roots on spheres: how diffeomorphisms without a closed inverse are inverted, with exact first derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flows.transforms.stumpff import stumpff

SphereMap = Callable[[Tensor], tuple[Tensor, Tensor]]  # x -> f(x), an n × n matrix that maps x to f(x) and dx to df
MAX_STEPS, LEAST_DAMPING = 200, 1e-9


def sphere_root(function: SphereMap, y: Tensor) -> Tensor:  # (batch, n) -> (batch, n)
    """The x on the sphere with f(x) = y, differentiable in y and in whatever f closes over.

    Newton's steps J t = log_f(x)(y), x ← exp_x(λt), each point with its own λ ≤ 1, halved until the distance of f(x)
    from y falls (Armijo) and doubled after a success. Where f is a diffeomorphism that distance has no other minimum,
    so the iteration started at x = y gets there, and is quadratic at the end. One more step, with J detached, is
    differentiated: it gives the derivatives of the implicit function theorem, of first order. Points that are there
    drop out. If some are stuck, or not there after `MAX_STEPS`, RuntimeError tells how many and the worst distance.

    Args:
        function: f and its Jacobian, both for a batch.
        y: unit vectors to reach.
    """
    with torch.no_grad():
        x = y if y.is_meta else _newton(function, y)
    value, jacobian = function(x)
    return _along(x, _step(value, jacobian.detach(), y))


def _newton(function: SphereMap, y: Tensor) -> Tensor:
    x, tolerance = y.clone(), torch.finfo(y.dtype).eps ** (2 / 3)
    value, jacobian = (t.clone() for t in function(x))
    damping = y.new_ones(len(y))
    for _ in range(MAX_STEPS):
        distance = _angle(value, y)
        active = (~(distance <= tolerance)).nonzero()[:, 0]
        if not len(active):
            return x
        if bool((damping[active] < LEAST_DAMPING).all()):
            break
        t = _step(value[active], jacobian[active], y[active])
        scale = torch.minimum(damping[active], 1 / t.norm(dim=-1))
        trial = _along(x[active], scale[:, None] * t)
        new_value, new_jacobian = function(trial)
        better = _angle(new_value, y[active]) <= (1 - scale / 4) * distance[active]
        damping[active] = torch.where(better, (2 * damping[active]).clamp(max=1), scale / 4)
        moved = active[better]
        x[moved], value[moved], jacobian[moved] = trial[better], new_value[better], new_jacobian[better]
    raise RuntimeError(
        f"expected f(x) = y to be solved to {tolerance:.0e}, got {len(active)} of {len(y)} points unsolved, "
        f"the worst {float(distance[active].max()):.1e} away: use float64 or an invertible map"
    )


def _step(value: Tensor, jacobian: Tensor, y: Tensor) -> Tensor:
    """t with J t = log_f(y), the velocity at f of the geodesic to y."""
    tangent = y - (value * y).sum(-1, keepdim=True) * value
    length = tangent.detach().norm(dim=-1, keepdim=True)
    angle = _angle(value, y).detach().unsqueeze(-1)
    stretch = torch.where(length > 1e-4, angle / length.clamp(min=1e-4), torch.ones_like(length))
    return torch.linalg.solve(jacobian, stretch * tangent)


def _angle(x: Tensor, y: Tensor) -> Tensor:  # (..., n) -> (...)
    """The distance on the sphere, exact for near and far pairs alike."""
    return 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))


def _along(x: Tensor, t: Tensor) -> Tensor:
    """exp_x(t), its component along x removed first, and back on the sphere to rounding."""
    t = t - (t * x).sum(-1, keepdim=True) * x
    cosine, sinc, *_ = stumpff(t.square().sum(-1, keepdim=True))
    moved = cosine * x + sinc * t
    return moved / moved.norm(dim=-1, keepdim=True)
