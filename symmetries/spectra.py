"""Functions of special unitary matrices that stay finite, with right gradients, where eigenvalues meet."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TAYLOR_TERMS, SQUARINGS = 24, 4  # SU(3) exponential: double precision for eigenangles up to 32


def exponential(a: Tensor) -> Tensor:  # (..., N, N) -> (..., N, N)
    """The exponential of traceless anti-Hermitian matrices.

    N = 2: exp a = cos δ + (sin δ / δ) a, with δ² = ½ ‖a‖². N = 3: exp a = c₀ + c₁ a + c₂ a² with coefficients
    entire in Tr a² and det a (Cayley–Hamilton), in full precision for eigenangles up to 32. N > 3: the
    general matrix exponential. Every derivative is finite and right, at a = 0 and at meeting eigenvalues too.

    References: Morningstar and Peardon 2004, hep-lat/0311018 (the same form, other coefficients).
    """
    n = a.shape[-1]
    return _exponential_2(a) if n == 2 else _exponential_3(a) if n == 3 else torch.linalg.matrix_exp(a)


def _exponential_2(a: Tensor) -> Tensor:  # (..., 2, 2) -> (..., 2, 2)
    cosine, sinc = _cosine_and_sinc(_square_norm(a) / 2)
    return cosine * _unit(a) + sinc * a


def _exponential_3(a: Tensor) -> Tensor:  # (..., 3, 3) -> (..., 3, 3)
    """exp a = (c₀ + c₁ x + c₂ x²)^16 with x = a/16: Horner's rule, reduced by x³ = ½ Tr x² x + det x."""
    x = a / 2**SQUARINGS
    square = x @ x
    half_trace, det = _trace(square) / 2, _trace(square @ x) / 3
    c0 = c1 = c2 = torch.zeros_like(det)
    for k in reversed(range(TAYLOR_TERMS)):
        c0, c1, c2 = det * c2 + 1 / math.factorial(k), c0 + half_trace * c2, c1
    result = c0 * _unit(a) + c1 * x + c2 * square
    for _ in range(SQUARINGS):
        result = result @ result
    return result


def _cosine_and_sinc(x: Tensor) -> tuple[Tensor, Tensor]:
    """cos √x and sin √x / √x for x >= 0: series below 0.05, so that no derivative meets 1/√x."""
    small = x < 0.05
    y = x.masked_fill(~small, 0)
    cosine = sum((-y) ** k / math.factorial(2 * k) for k in range(8))
    sinc = sum((-y) ** k / math.factorial(2 * k + 1) for k in range(8))
    root = x.masked_fill(small, 1).sqrt()
    return torch.where(small, cosine, root.cos()), torch.where(small, sinc, root.sin() / root)


def eigenangles(u: Tensor) -> Tensor:  # (..., N, N) -> (..., N)
    """The eigenangles θ of special unitary matrices in one alcove: sorted, Σθ = 0, θ_N - θ_1 <= 2π.

    Closed forms for N = 2 and 3, general eigenvalues beyond. The error is of the order of rounding also where
    eigenvalues meet; gradients are finite everywhere, and right wherever θ is differentiable.
    """
    n = u.shape[-1]
    return alcove(_angles_2(u) if n == 2 else _angles_3(u) if n == 3 else torch.linalg.eigvals(u).angle())


def alcove(angles: Tensor) -> Tensor:  # (..., N) -> (..., N)
    """Move angles with Σθ in 2πZ by multiples of 2π to Σθ = 0 and θ_N - θ_1 <= 2π, sorted."""
    return _lift(wrap(angles).sort(-1).values).sort(-1).values


def wrap(angle: Tensor) -> Tensor:
    """The angle in [-π, π] modulo 2π; exact for angles already there."""
    return angle - 2 * math.pi * (angle / (2 * math.pi)).round()


def _lift(angles: Tensor) -> Tensor:  # (..., N) -> (..., N)
    """Shift the k largest of sorted principal angles by -2π (the -k smallest by 2π), where Σθ = 2πk."""
    n, turns = angles.shape[-1], (angles.sum(-1, keepdim=True) / (2 * math.pi)).round()
    rank = torch.arange(n, device=angles.device)
    return angles - 2 * math.pi * ((rank >= n - turns).to(angles) - (rank < -turns).to(angles))


def _angles_2(u: Tensor) -> Tensor:  # (..., 2, 2) -> (..., 2)
    """∓δ, where cos δ is half the trace and sin δ the norm of the traceless part."""
    mean = _trace(u) / 2
    delta = _half_gap(u - mean * _unit(u), mean.real)
    return torch.cat([-delta, delta], -1).squeeze(-2)


def _angles_3(u: Tensor) -> Tensor:  # (..., 3, 3) -> (..., 3)
    """One eigenangle α from the cubic, the other two -α/2 ∓ δ from the complement of its eigenspace."""
    trace = _trace(u)
    m = u - trace / 3 * _unit(u)  # m³ = a m + b
    square = m @ m
    a, b = _trace(square) / 2, _trace(square @ m) / 3
    root = _isolated_root(a, b)
    projector = (square + root * m + (root**2 - a) * _unit(u)) / _nonzero(3 * root**2 - a)
    alpha = (root + trace / 3).angle()
    mean = (trace * 2 / 3 - root) / 2 * torch.polar(torch.ones_like(alpha), alpha / 2)
    delta = _half_gap(m + root / 2 * (_unit(u) - 3 * projector), mean.real)
    return torch.cat([alpha, -alpha / 2 - delta, -alpha / 2 + delta], -1).squeeze(-2)


def _half_gap(difference: Tensor, cosine: Tensor) -> Tensor:  # (..., N, N), (..., 1, 1) -> (..., 1, 1)
    """δ in [0, π] from cos δ and a matrix with eigenvalues ± i e^{iφ} sin δ; gradient 0 at δ = 0."""
    square = _square_norm(difference) / 2
    zero = square == 0
    return torch.atan2(square.masked_fill(zero, 1).sqrt().masked_fill(zero, 0), cosine)


def _isolated_root(a: Tensor, b: Tensor) -> Tensor:
    """The root of x³ = a x + b farthest from the other two: Cardano's, with gradients from two Newton steps.

    Newton's steps start at a constant, so the square root of the discriminant is never differentiated.
    """
    x = _cardano(a.detach(), b.detach())
    for _ in range(2):
        x = x - (x**3 - a * x - b) / _nonzero(3 * x**2 - a)
    return x


def _cardano(a: Tensor, b: Tensor) -> Tensor:
    """The root x = w + a/(3w), w³ = b/2 ± √(b²/4 - a³/27) (no cancellation), with the largest |3x² - a|."""
    scale = torch.maximum(a.abs().sqrt(), b.abs() ** (1 / 3))
    scale = scale.masked_fill(scale == 0, 1)
    a, b = a / scale**2, b / scale**3
    root = (b**2 / 4 - a**3 / 27).sqrt()
    cube = b / 2 + torch.where((b.conj() * root).real < 0, -root, root)
    third = torch.arange(3, device=a.device, dtype=scale.dtype) * (2 * math.pi / 3)
    w = _nonzero(cube) ** (1 / 3) * torch.polar(torch.ones_like(third), third)
    x = w + a / (3 * w)
    best = (3 * x**2 - a).abs().argmax(-1, keepdim=True)
    return torch.where(cube == 0, 0, x.gather(-1, best)) * scale


def logarithm(u: Tensor) -> Tensor:  # (..., N, N) -> (..., N, N)
    """The shortest traceless anti-Hermitian v with exp v = u; unique where θ_N - θ_1 < 2π.

    First derivatives are exact, also at meeting eigenvalues; a second derivative raises an error.
    """
    return _Logarithm.apply(u)[0]


class _Logarithm(torch.autograd.Function):
    """v = V diag(iθ) V†, dv = V (Γ ∘ V† du V) V† with the divided differences Γ_jk of the logarithm."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vectors = torch.linalg.qr(torch.linalg.eig(u).eigenvectors).Q  # orthonormal where eigenvalues meet
        values = (vectors.conj() * (u @ vectors)).sum(-2).angle()
        angles, order = values.sort(-1)
        angles, vectors = _lift(angles), vectors.gather(-1, order[..., None, :].expand_as(vectors))
        return (vectors * (1j * angles)[..., None, :]) @ vectors.mH, vectors, angles

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> Tensor:
        vectors, angles = ctx.saved_tensors
        half_gap = (angles[..., :, None] - angles[..., None, :]) / 2
        half_sum = (angles[..., :, None] + angles[..., None, :]) / 2
        conjugate_ratio = torch.polar(1 / torch.sinc(half_gap / math.pi), half_sum)
        return vectors @ (conjugate_ratio * (vectors.mH @ gradient @ vectors)) @ vectors.mH


def traceless_anti_hermitian(m: Tensor) -> Tensor:  # (..., N, N) -> (..., N, N)
    """The orthogonal projection of any matrix on su(N): ½(m - m†) less its trace."""
    a = (m - m.mH) / 2
    return a - _trace(a) / m.shape[-1] * _unit(m)


def _trace(m: Tensor) -> Tensor:  # (..., N, N) -> (..., 1, 1)
    return m.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]


def _square_norm(m: Tensor) -> Tensor:  # (..., N, N) -> (..., 1, 1), real
    return torch.view_as_real(m).square().sum((-3, -2, -1))[..., None, None]


def _unit(m: Tensor) -> Tensor:  # (..., N, N) -> (N, N)
    return torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(x == 0, torch.ones_like(x), x)
