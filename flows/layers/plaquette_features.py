"""Gauge-invariant features of plaquettes, their derivatives by links, and their Laplacians, in closed form."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from flows.layers.cell_kernels import Passage
from lattices.fields import FieldSpace
from lattices.loops import (
    Path,
    matrices,
    orientations,
    planes,
    plaquettes,
    real_trace,
    shifted,
    staples,
    transporter,
)  # fmt: skip
from symmetries.group import LieGroup
from symmetries.lie import SUN


class Features(NamedTuple):
    """f_m of all plaquettes: even ones Re Tr P^k / kN first, then odd ones Im Tr P^k / kN, k = 1 … K.

    `gradients` holds ∇_l f_m as seen from each link l = (x, μ) for the 2(d-1) plaquettes through it, in the order of
    `passages`; coordinates are those of the orthonormal basis T_a of the algebra. `loops` are these plaquettes as
    matrices that start along the link, (batch, d, 2(d - 1), *extents, N, N); None for U(1).
    """

    values: Tensor  # (batch, F, planes, *extents)
    laplacians: Tensor  # the same: Σ ∇_l² f_m over the four links of the plaquette
    gradients: Tensor  # (batch, d, F, 2(d - 1), *extents, dim)
    loops: Tensor | None = None


def passages(dimension: int, mu: int) -> list[Passage]:
    """The 2(d-1) plaquettes through a link in direction μ: for every ν ≠ μ the one at x, then the one at x - ν̂."""
    sides, found = planes(dimension), []
    for nu in (axis for axis in range(dimension) if axis != mu):
        plane, sign = sides.index((min(mu, nu), max(mu, nu))), 1 if mu < nu else -1
        back = tuple(-int(axis == nu) for axis in range(dimension))
        found += [Passage(plane, (0,) * dimension, sign), Passage(plane, back, -sign)]
    return found


def n_features(group: LieGroup, n_powers: int) -> tuple[int, int]:
    """How many even and odd features there are: SU(2) has real traces and no odd ones."""
    return n_powers, 0 if group == SUN(2) else n_powers


def plaquette_features(field: FieldSpace, x: Tensor, n_powers: int) -> Features:
    """All features of a field of links; differentiable. Cost V d(d-1) matrix products."""
    return _non_abelian(field, x, n_powers) if field.target.shape else _abelian(field, x, n_powers)


def _abelian(field: FieldSpace, x: Tensor, n_powers: int) -> Features:
    """cos(kθ)/k and sin(kθ)/k: the derivatives along the link are -sin kθ and cos kθ, times the orientation."""
    d, axes = field.lattice.dimension, field.lattice_axes
    k = torch.arange(1, n_powers + 1, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (d + 1))
    angles = [x[:, mu] + x[:, nu].roll(-1, axes[mu]) - x[:, mu].roll(-1, axes[nu]) - x[:, nu] for mu, nu in planes(d)]
    angle = k * torch.stack(angles, 1)[:, None]
    cosine, sine = angle.cos(), angle.sin()
    values, slopes = torch.cat([cosine / k, sine / k], 1), torch.cat([-sine, cosine], 1)
    links = [
        torch.stack([p.sign * _at(slopes[:, :, p.kind], p.shift, axes) for p in passages(d, mu)], 2) for mu in range(d)
    ]
    return Features(values, -4 * torch.cat([k, k]).square() * values, torch.stack(links, 1)[..., None])


def _non_abelian(field: FieldSpace, x: Tensor, n_powers: int) -> Features:
    """Re and Im of Tr P^k / kN with gradients Re, Im Tr T_a Q^k / N, where the loop Q starts along the link."""
    group, d = _special_unitary(field), field.lattice.dimension
    p = plaquettes(x)
    powers = _powers(p, n_powers)
    traces = [power.diagonal(dim1=-2, dim2=-1).sum(-1) for power in powers]
    laplacians = [4 / (k * group.n) * _laplacian(traces, k, group.n) for k in range(1, n_powers + 1)]
    value = torch.stack([trace / (k * group.n) for k, trace in enumerate(traces, 1)], 1)
    basis = _dual_basis(group, x.dtype, x.device) / group.n
    loops = _through_links(x, p)  # (batch, d, 2(d - 1), *extents, N, N)
    gradients = torch.stack([power.flatten(-2) @ basis for power in _powers(loops, n_powers)], 2)
    even = gradients.real
    if n_features(group, n_powers)[1] == 0:
        return Features(value.real, torch.stack(laplacians, 1).real, even, loops)
    signs = torch.tensor([[p.sign for p in passages(d, mu)] for mu in range(d)], device=x.device, dtype=even.dtype)
    odd = gradients.imag * signs.reshape(1, d, 1, 2 * (d - 1), *[1] * (d + 1))
    laplacian = torch.stack(laplacians, 1)
    return Features(
        torch.cat([value.real, value.imag], 1),
        torch.cat([laplacian.real, laplacian.imag], 1),
        torch.cat([even, odd], 2),
        loops,
    )


def _through_links(u: Tensor, p: Tensor) -> Tensor:
    """The plaquettes through each link, starting along it, in the order of `passages`."""
    d, links = u.shape[1], []
    sides = planes(d)
    for mu in range(d):
        found = []
        for nu in (axis for axis in range(d) if axis != mu):
            plane = p[:, sides.index((min(mu, nu), max(mu, nu)))]
            along = plane if mu < nu else plane.mH
            beyond = u[:, nu].mH @ along.mH @ u[:, nu]  # based at x + ν̂, along -(-μ)
            found += [along, shifted(beyond, nu, -1, d)]
        links.append(torch.stack(found, 1))
    return torch.stack(links, 1)


def _powers(m: Tensor, n: int) -> list[Tensor]:
    powers = [m]
    for _ in range(n - 1):
        powers.append(powers[-1] @ m)
    return powers


def _laplacian(traces: list[Tensor], k: int, n: int) -> Tensor:
    """Σ_a ∂_a² Tr P^k = -k C_F Tr P^k - (k/2) Σ_j [Tr P^j Tr P^{k-j} - Tr P^k / N], C_F = (N² - 1)/2N."""
    trace = traces[k - 1]
    pairs = sum(traces[j - 1] * traces[k - j - 1] - trace / n for j in range(1, k))
    return -k * (n * n - 1) / (2 * n) * trace - k / 2 * pairs


class LoopFeatures(NamedTuple):
    """W = Σ Re Tr U_loop / N of one shape: gradients by links, and the sum of the Laplacians."""

    gradient: Tensor  # (batch, d, *extents, dim)
    laplacian: Tensor  # (batch,)


def loop_features(field: FieldSpace, x: Tensor, loop: Path) -> LoopFeatures:
    """The sum over all positions and orientations of a loop that passes through no link twice.

    ∇_l W = Σ Re Tr (T_a U A) / N,    Σ_l ∇_l² W = -C_F · length · W,  with C_F = 1 for U(1).
    """
    u = matrices(field, x)
    d, n = u.shape[1], u.shape[-1]
    through = u @ staples(u, loop)
    total = torch.stack([real_trace(transporter(u, image)).flatten(1).sum(1) for image in orientations(loop, d)])
    casimir = (n * n - 1) / (2 * n) if field.target.shape else 1.0
    return LoopFeatures(through_coordinates(field, through) / n, -casimir * len(loop) * total.sum(0))


def through_coordinates(field: FieldSpace, loops: Tensor) -> Tensor:  # (..., N, N) -> (..., dim)
    """Re Tr(T_a Q) of loops Q that start along a link: the derivative of Re Tr Q by the link; -Im Q for U(1)."""
    if not field.target.shape:
        return -loops.imag.squeeze(-1)
    return (loops.flatten(-2) @ _dual_basis(_special_unitary(field), loops.dtype, loops.device)).real


@cache
def _dual_basis(group: SUN, dtype: torch.dtype, device: torch.device) -> Tensor:  # -> (N², dim)
    """The columns (T_a)_ji, for Tr T_a Q = Q_ij (T_a)_ji."""
    return group.algebra_basis(dtype, device).mT.flatten(1).T.contiguous()


def _special_unitary(field: FieldSpace) -> SUN:
    group = getattr(field.target, "group", None)
    if not isinstance(group, SUN):
        raise ValueError(f"expected links in SU(N), got {field.target}: use Links(SUN(n))")
    return group


def _at(v: Tensor, shift: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """v(x + shift)."""
    moved = [(-n, axis) for n, axis in zip(shift, axes) if n]
    return v.roll([n for n, _ in moved], [axis for _, axis in moved]) if moved else v


def from_coordinates(field: FieldSpace, v: Tensor, dtype: torch.dtype) -> Tensor:  # (..., dim) -> (..., *element)
    """The algebra element Σ v_a T_a."""
    if not field.target.shape:
        return v.squeeze(-1)
    dual = _dual_basis(_special_unitary(field), dtype, v.device)  # T_a = -T_a†
    return -(v.to(dtype) @ dual.mH).unflatten(-1, field.target.shape)


def to_coordinates(field: FieldSpace, v: Tensor) -> Tensor:  # (..., *element) -> (..., dim)
    """⟨T_a, v⟩ = -2 Tr T_a v of algebra elements."""
    return -2 * through_coordinates(field, v) if field.target.shape else v[..., None]
