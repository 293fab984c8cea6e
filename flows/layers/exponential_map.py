"""Exponential-map layer: every point moves along the gradient of a potential, with a closed Jacobian."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from flows.bijection import Bijection, Scored
from flows.transforms.potentials import (
    PolynomialPotential,
    Potential,
    RadialPotential,
    SoftMinimumPotential,
)
from flows.transforms.sphere_roots import sphere_root
from flows.transforms.stumpff import stumpff
from flows.transforms.symmetrized import SymmetrizedPotential
from lattices.fields import FieldSpace, Sphere
from lattices.invariance import PointGroup, Translations
from lattices.lattice import Lattice


class _Moved(NamedTuple):
    """exp_x(v), and its Jacobian T M: M acts on tangent vectors at x, the rotation T carries them to exp_x(v)."""

    y: Tensor  # (batch, n)
    stretch: Tensor  # M, (batch, n, n), with M x = x
    transport: Tensor  # T, (batch, n, n), with T x = y


@final
class ExponentialMap(Bijection):
    """x_s = exp_{z_s}(∇φ(z_s)) at every site s of a field of unit vectors, all sites with the same potential φ.

    With v = ∇φ, r = |v|, H the Hessian on the sphere, P = 1 - zzᵀ and Stumpff functions C_m(r²),

        x = C_0 z + C_1 v,   ∂x/∂z = T M,   M = C_0 P + C_2 vvᵀ + (C_1 P + C_3 vvᵀ) H,   log|det| = log|det M|,

    T the parallel transport from z to x. There is no quotient by r: critical points of φ are points like others. The
    potential guarantees a diffeomorphism. Cost O(V n³) beside that of φ; the inverse is solved by Newton's method, a
    few times that cost.

    Args:
        field: unit vectors on sites.
        potential: φ, of as many components; convolutions are not needed since sites do not interact.
    Symmetries: all symmetries of the lattice, and those of φ.
    References: M. Sei (2013); D. J. Rezende et al., 2002.02428, section 2.4; S. Cohen et al., 2106.10272, eq. (8).
    """

    def __init__(self, field: FieldSpace, potential: Potential) -> None:
        super().__init__()
        self.domain = self.codomain = require_unit_vectors(field, potential)
        self.potential = potential
        self.symmetries = (Translations(), PointGroup(), *potential.symmetries)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        moved = self._move(z.flatten(0, -2))
        return moved.y.view_as(z), moved.stretch.slogdet().logabsdet.reshape(len(z), -1).sum(1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = sphere_root(self._with_jacobian, x.flatten(0, -2))
        log_det = self._move(z).stretch.slogdet().logabsdet
        return z.view_as(x), -log_det.reshape(len(x), -1).sum(1)

    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        """s_x = J⁻ᵀ (s_z - ∇ log|det J|): one solution of linear equations per site, no inversion of the map."""
        with torch.enable_grad():
            start = z.detach().requires_grad_()
            moved = self._move(start.flatten(0, -2))
            log_det = moved.stretch.slogdet().logabsdet.reshape(len(z), -1).sum(1)
            derivative = torch.autograd.grad(log_det.sum(), start)[0]
        tangent = self.domain.target.gradient(z, score - derivative).flatten(0, -2).detach().unsqueeze(-1)
        pushed = moved.transport.detach() @ torch.linalg.solve(moved.stretch.detach().mT, tangent)
        return Scored(moved.y.detach().view_as(z), log_det.detach(), pushed.view_as(z))

    def push_tangents(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> tuple[Scored, Tensor]:
        """`push_score`, and ∂_θ log q(x) at fixed x, which is -∂_θ [log|det J| + s_x·f(z)] at fixed z."""
        pushed = self.push_score(z, score)
        return pushed, -parameter_gradients(self, z, pushed.score)

    def _move(self, x: Tensor) -> _Moved:  # (batch, n) -> ...
        gradient, hessian = self.potential.derivatives(x)
        radial, column = (x * gradient).sum(-1, keepdim=True), x.unsqueeze(-1)
        v = gradient - radial * x
        unit = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        tangent = unit - column @ column.mT
        cosine, sinc, c2, c3 = (c[..., None, None] for c in stumpff(v.square().sum(-1)))
        vector = v.unsqueeze(-1)
        square = vector @ vector.mT
        curved = tangent @ hessian @ tangent - radial.unsqueeze(-1) * tangent
        stretch = unit + (cosine - 1) * tangent + c2 * square + (sinc * tangent + c3 * square) @ curved
        moved = cosine[..., 0] * x + sinc[..., 0] * v
        length = c2 * v.square().sum(-1)[..., None, None]
        transport = unit - (sinc * column + c2 * vector) @ vector.mT + (sinc * vector - length * column) @ column.mT
        return _Moved(moved, stretch, transport)

    def _with_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        moved = self._move(x)
        return moved.y, moved.transport @ moved.stretch

    @classmethod
    def examples(cls) -> Iterator[ExponentialMap]:
        """Every potential on one point, and one of them on every site of a lattice."""
        for family in (RadialPotential, PolynomialPotential, SoftMinimumPotential, SymmetrizedPotential):
            for potential in family.examples():
                yield cls(FieldSpace(Lattice((1,)), Sphere(potential.n - 1)), potential)
        yield cls(FieldSpace(Lattice((2, 3)), Sphere(2)), RadialPotential(3, 2))


def require_unit_vectors(field: FieldSpace, potential: Potential) -> FieldSpace:
    """Return the field if it has one unit vector of the potential's number of components on each site."""
    if field.cells != "sites" or not isinstance(field.target, Sphere):
        raise TypeError(f"expected unit vectors on sites, got {field}: use Sphere({potential.n - 1})")
    if field.target.n + 1 != potential.n:
        raise ValueError(f"expected a potential of {field.target.n + 1} components, got {potential.n}: match S^D")
    return field


def parameter_gradients(layer: ExponentialMap, z: Tensor, cotangent: Tensor) -> Tensor:  # -> (batch, n_parameters)
    """∂_θ [log|det J| + cotangent·f(z)] for every sample by itself, in the order of the trainable parameters."""
    parameters = {name: p.detach() for name, p in layer.named_parameters() if p.requires_grad}

    def paired(parameters: dict[str, Tensor], z: Tensor, cotangent: Tensor) -> Tensor:
        x, log_det = functional_call(layer, parameters, (z[None],))
        return log_det[0] + (cotangent * x[0]).sum()

    rows = vmap(grad(paired), (None, 0, 0))(parameters, z, cotangent)
    return torch.cat([row.reshape(len(z), -1) for row in rows.values()], 1)
