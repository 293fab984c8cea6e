"""Features of points on a sphere with bounded derivatives, from which networks build potentials; some are invariant."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from flows.transforms.symmetrized import generated_group
from lattices.invariance import Symmetry
from lattices.spins import AxisRotations, SpinPointGroup
from symmetries.rotations import RotationIrreps


class Jet(NamedTuple):
    """m functions of x with their first and second derivatives in R^n."""

    value: Tensor  # (..., m)
    gradient: Tensor  # (..., m, n)
    hessian: Tensor  # (..., m, n, n)


class Features(nn.Module, ABC):
    """m smooth functions f on S^{n-1}.

    `slope` bounds the derivative |df(t)| and `curvature` the Hessian |∇²f(t, t)| on the sphere, for unit tangent
    vectors t; `symmetries` are claims about spins under which all f are invariant.
    """

    n: int
    n_features: int
    slope: float
    curvature: float
    symmetries: tuple[Symmetry, ...] = ()

    @abstractmethod
    def jet(self, x: Tensor) -> Jet:  # (..., n) -> ...
        """f and its derivatives, of any extension off the sphere."""


@final
class Coordinates(Features):
    """The coordinates of x, all or only the last: that one is invariant under rotations about its axis.

    Args:
        n: components of x.
        zonal: only the last coordinate.
    Symmetries: O(n - 1) about the last axis, if zonal.
    """

    rows: Tensor

    def __init__(self, n: int, zonal: bool = False, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.n, self.slope, self.curvature = n, 1.0, 1.0
        self.register_buffer("rows", torch.eye(n, dtype=dtype)[-1:] if zonal else torch.eye(n, dtype=dtype))
        self.n_features, self.symmetries = len(self.rows), (AxisRotations(),) * zonal

    def jet(self, x: Tensor) -> Jet:
        gradient = self.rows.expand(*x.shape[:-1], -1, -1)
        return Jet(x @ self.rows.mT, gradient, x.new_zeros(*gradient.shape, self.n))


@final
class HarmonicInvariants(Features):
    """The spherical harmonics on S² that a point group leaves invariant, as polynomials of x.

        f_i(x) = c_i·Y_l(x) / [λ(λ - 1)]^½,  λ = l(l + 1),  D_l(g) c_i = c_i for all g,  |Y_l(x)| = 1

    The c_i are orthonormal eigenvectors of the projector Σ_g D_l(g)/|G|. By the addition theorem and Bochner's formula
    Σ_m |∇Y_lm|² = λ and Σ_m |∇²Y_lm|² = λ(λ - 1), which give `slope` and `curvature`. A cube has invariants at
    l = 4, 6, 8, …, an icosahedron at l = 6, 10, 12, …. Cost O(l²) monomials for every point.

    Args:
        group: claim of the point group, with 3 × 3 generators.
        degrees: the l ≥ 1 to search; those without invariants are left out.
    Symmetries: the group.
    References: e3nn's irreducible representations of O(3), M. Geiger & T. Smidt, 2207.09453.
    """

    coefficients: Tensor  # (m, n_monomials)
    exponents: Tensor  # (n_monomials, 3)

    def __init__(
        self, group: SpinPointGroup, degrees: tuple[int, ...] = (4, 6, 8), dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        elements = generated_group(group)
        if elements.shape[-1] != 3 or not degrees or any(type(l) is not int or not 1 <= l <= 12 for l in degrees):
            raise ValueError(f"expected a group in three dimensions and degrees from 1 to 12, got {group}, {degrees}")
        found = {l: rows for l in sorted(set(degrees)) if len(rows := _invariants(l, elements))}
        if not found:
            raise ValueError(f"expected invariants of the group, got none of degrees {degrees}: try higher degrees")
        self.register_buffer("coefficients", torch.block_diag(*found.values()).to(dtype))
        self.register_buffer("exponents", torch.cat([_exponents(l) for l in found]))
        self.n, self.n_features, self.symmetries = 3, len(self.coefficients), (group,)
        self.degree = max(found)
        self.slope = math.sqrt(sum(0.5 / (l * (l + 1) - 1) for l in found))
        self.curvature = math.sqrt(len(found))

    def jet(self, x: Tensor) -> Jet:
        power, first, second = self._powers(x)
        a, b, c = power.unbind(-2)
        da, db, dc = first.unbind(-2)
        daa, dbb, dcc = second.unbind(-2)
        gradient = torch.stack((da * b * c, a * db * c, a * b * dc), -1)
        ab, ac, bc = da * db * c, da * b * dc, a * db * dc
        hessian = torch.stack((daa * b * c, ab, ac, ab, a * dbb * c, bc, ac, bc, a * b * dcc), -1)
        value, hessian = (a * b * c) @ self.coefficients.mT, self.coefficients @ hessian
        return Jet(value, self.coefficients @ gradient, hessian.unflatten(-1, (3, 3)))

    def _powers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (..., 3) -> thrice (..., 3, n_monomials)
        """x_i^k and its two derivatives for the exponents k of every monomial."""
        powers = [torch.ones_like(x)]
        for _ in range(self.degree):
            powers.append(powers[-1] * x)
        k = torch.arange(self.degree + 1, dtype=x.dtype, device=x.device)
        table = torch.stack(powers, -1)
        axes, chosen = torch.arange(3, device=x.device)[:, None], self.exponents.mT
        first, second = k * pad(table, (1, -1)), k * (k - 1) * pad(table, (2, -2))
        return table[..., axes, chosen], first[..., axes, chosen], second[..., axes, chosen]


def _exponents(l: int) -> Tensor:  # -> ((l + 1)(l + 2)/2, 3)
    """The monomials of degree l in three variables."""
    return torch.tensor([(i, j, l - i - j) for i in range(l + 1) for j in range(l + 1 - i)])


def _invariants(l: int, elements: Tensor) -> Tensor:  # (order, 3, 3) -> (n_invariants, n_monomials)
    """The normalised invariant harmonics of degree l, as rows of coefficients of the monomials."""
    irrep = RotationIrreps(f"{l}{'o' if l % 2 else 'e'}")
    values, vectors = torch.linalg.eigh(irrep.matrix(elements).mean(0))
    eigenvalue = l * (l + 1)
    invariant = vectors[:, values > 0.5] / math.sqrt(eigenvalue * (eigenvalue - 1))
    exponents = _exponents(l)
    signs = torch.tensor([[1.0, 1, 1], [-1, 1, 1], [1, -1, 1], [-1, -1, 1]], dtype=torch.float64)
    points = normalize((signs[:, None] * exponents).flatten(0, 1), dim=1)  # they determine a polynomial of degree l
    monomials = (points[:, None] ** exponents).prod(-1)
    return torch.linalg.lstsq(monomials, _harmonics(irrep, points) @ invariant).solution.mT


def _harmonics(irrep: RotationIrreps, points: Tensor) -> Tensor:  # (m, 3) -> (m, 2l + 1)
    """Y(x) = D(g) Y(e), with g the reflection that exchanges x and the polar axis e, where Y(e) is a unit vector."""
    pole = points.new_tensor([0.0, 1.0, 0.0])
    w = pole - points
    w = torch.where(w.norm(dim=1, keepdim=True) > 0, w, points.new_tensor([1.0, 0.0, 0.0]))
    reflection = torch.eye(3, dtype=points.dtype) - 2 * w[:, :, None] * w[:, None] / w.square().sum(1)[:, None, None]
    return irrep.matrix(reflection)[:, :, irrep.dim // 2]
