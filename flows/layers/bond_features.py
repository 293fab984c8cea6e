"""O(n)-covariant features of the bonds of a spin lattice, their derivatives by spins, and Laplacians, in closed form.

A bond joins s to s' = s(x + μ̂), with c = s·s'. Even features are the zonal harmonics f_k = G_k(c)/k, odd ones the
antisymmetric currents f_k' (s ∧ s')/k, one component for each plane of rotation: cos k(θ - θ')/k and sin k(θ - θ')/k
for planar spins. Both are eigenfunctions of the Laplacian of either spin, with eigenvalue -k(k + n - 2).
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations

import numpy as np
import torch
from numpy.polynomial import polynomial
from scipy.special import gegenbauer
from torch import Tensor

from flows.layers.cell_flow import Part
from flows.layers.cell_kernels import Passage
from lattices.fields import Circle, FieldSpace


def passages(dimension: int) -> list[Passage]:
    """The 2d bonds of a spin: for every μ the one that starts at x, then the one that ends there."""
    found = []
    for mu in range(dimension):
        back = tuple(-int(axis == mu) for axis in range(dimension))
        found += [Passage(mu, (0,) * dimension, 1), Passage(mu, back, -1)]
    return found


def bond_features(field: FieldSpace, x: Tensor, n_powers: int) -> tuple[Part, Part]:
    """Even and odd features of all bonds; differentiable. Derivatives by angles, or tangent vectors on spheres."""
    return (_planar if isinstance(field.target, Circle) else _spherical)(field, x, n_powers)


def _planar(field: FieldSpace, x: Tensor, n_powers: int) -> tuple[Part, Part]:
    axes = field.lattice_axes
    k = torch.arange(1, n_powers + 1, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (len(axes) + 2))
    angle = k * torch.stack([x - x.roll(-1, axis) for axis in axes], 1)[:, None, None]  # (batch, K, 1, d, *extents)
    parts = []
    for value, slope in ((angle.cos(), -angle.sin()), (angle.sin(), angle.cos())):
        parts.append(Part(value / k, -2 * k * value, _seen(slope.unsqueeze(-1), -slope.unsqueeze(-1), axes)))
    return parts[0], parts[1]


def _seen(start: Tensor, end: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Derivatives by the first and the second spin of bonds, as seen from each spin, in the order of `passages`.

    Shape: (batch, K, C, d, *extents, dim) twice -> (batch, 1, K, C, 2d, *extents, dim).
    """
    seen = []
    for mu, axis in enumerate(axes):
        seen += [start[:, :, :, mu], end[:, :, :, mu].roll(1, axis - 1)]
    return torch.stack(seen, 3).unsqueeze(1)


def _spherical(field: FieldSpace, x: Tensor, n_powers: int) -> tuple[Part, Part]:
    n, axes = x.shape[-1], field.lattice_axes
    s = x.unsqueeze(1).expand(-1, len(axes), *x.shape[1:])  # (batch, d, *extents, n)
    t = torch.stack([x.roll(-1, axis) for axis in axes], 1)
    c = (s * t).sum(-1)
    f, slope, bend = (_polynomials(table, c) for table in _zonal(n, n_powers))  # (batch, K, d, *extents)
    k = torch.arange(1, n_powers + 1, dtype=x.dtype, device=x.device).reshape(-1, *[1] * c.ndim)
    eigenvalues = -2 * k * (k + n - 2)
    even = [(slope.unsqueeze(-1) * v.unsqueeze(1)).unsqueeze(2) for v in (t - c[..., None] * s, s - c[..., None] * t)]
    value = f.unsqueeze(2)
    first = Part(value, eigenvalues * value, _seen(even[0], even[1], field.lattice.axes))
    wedge = (_rotated(t, n) * s.unsqueeze(1)).sum(-1)  # (batch, C, d, *extents)
    slope, bend = slope / k[..., 0], bend / k[..., 0]
    current = slope.unsqueeze(2) * wedge.unsqueeze(1)
    by_s = _current_gradient(wedge, slope, bend, (s, t, c))
    by_t = _current_gradient(-wedge, slope, bend, (t, s, c)).neg_()
    return first, Part(current, eigenvalues * current, _seen(by_s, by_t, field.lattice.axes))


def _current_gradient(wedge: Tensor, slope: Tensor, bend: Tensor, bond: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The derivative by p of f'(c) (p ∧ q)_ab, c = p·q: f' (e_a q_b - e_b q_a) + (p ∧ q)_ab [f'' (q - c p) - f' p].

    Shape: -> (batch, K, C, d, *extents, n).
    """
    p, q, c = bond
    along = bend.unsqueeze(-1) * (q - c.unsqueeze(-1) * p).unsqueeze(1) - slope.unsqueeze(-1) * p.unsqueeze(1)
    turned = slope[:, :, None, ..., None] * _rotated(q, p.shape[-1]).unsqueeze(1)
    return turned + wedge[:, None, ..., None] * along.unsqueeze(2)


def _rotated(q: Tensor, n: int) -> Tensor:  # (batch, d, *extents, n) -> (batch, C, d, *extents, n)
    """e_a q_b - e_b q_a for the planes a < b."""
    planes = q.new_zeros(len(q), math.comb(n, 2), *q.shape[1:])
    for plane, (a, b) in enumerate(combinations(range(n), 2)):
        planes[:, plane, ..., a] = q[..., b]
        planes[:, plane, ..., b] = -q[..., a]
    return planes


@lru_cache
def _zonal(n: int, n_powers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # -> (K, K + 1) three times
    """The coefficients, lowest first, of f_k = G_k/k with G_k(1) = 1, and of f_k' and f_k''."""
    tables = np.zeros((3, n_powers, n_powers + 1))
    for k in range(1, n_powers + 1):
        alpha = n / 2 - 1
        coefficients = gegenbauer(k, alpha).coef[::-1] if alpha else np.polynomial.chebyshev.cheb2poly([0] * k + [1])
        coefficients = coefficients / (k * coefficients.sum())
        for order in range(3):
            derivative = polynomial.polyder(coefficients, order) if order else coefficients
            tables[order, k - 1, : len(derivative)] = derivative
    return tables[0], tables[1], tables[2]


def _polynomials(table: np.ndarray, c: Tensor) -> Tensor:  # (batch, ...) -> (batch, K, ...)
    columns = c.new_tensor(table.T)  # of one power each
    total = torch.zeros_like(c).unsqueeze(1).expand(-1, table.shape[0], *c.shape[1:])
    for column in columns.flip(0):
        total = total * c.unsqueeze(1) + column.reshape(-1, *[1] * (c.ndim - 1))
    return total
