"""Möbius maps, zonal maps and rotations of unit vectors: the simplest layers on spheres."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from flows.bijection import Bijection, Scored
from flows.conditioners.height_networks import HeightNetwork, NetworkSpec
from flows.layers.recursive_sphere import require_sphere
from flows.transforms.heights import HeightMixture, HeightSpline, HeightTransform
from flows.transforms.mobius import into_ball, mobius, zonal
from lattices.fields import FieldSpace, Sphere
from lattices.invariance import PointGroup, SignFlip, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.spins import AxisRotations


@final
class MobiusLayer(Bijection):
    """x_s = h_w(z_s) with a trainable w: mass moves away from w / |w|, or towards it; the identity at the start.

        h_w(z) = (1 - |w|²) / |z - w|² · (z - w) - w,    w = 0.99 v / √(1 + |v|²)

    Conformal, with the inverse h_{-w}. With the rotations these maps form the Lorentz group SO(1, D + 1): a chain of
    both is no richer than one of each. Mix them instead, see `ZonalLayer`. Cost O(V).

    Args:
        field: `Sphere(D)` on sites, D ≥ 1.
        shared: one w for all sites, otherwise one for each.

    Symmetries: with a shared w, translations and the point group.
    """

    def __init__(self, field: FieldSpace, shared: bool = True, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.domain = self.codomain = field
        n = require_sphere(field) + 1
        self.symmetries: tuple[Symmetry, ...] = (Translations(), PointGroup()) if shared else ()
        self.v = nn.Parameter(torch.zeros((n,) if shared else field.event_shape, dtype=dtype))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = mobius(z, into_ball(self.v))
        return x, log_det.flatten(1).sum(1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = mobius(x, -into_ball(self.v))
        return z, log_det.flatten(1).sum(1)

    @classmethod
    def examples(cls) -> Iterator[MobiusLayer]:
        """On S¹, S² and S³, shared or not."""
        yield cls(FieldSpace(Lattice((1,)), Sphere(1)))
        yield cls(FieldSpace(Lattice((2, 2)), Sphere(2)))
        yield cls(FieldSpace(Lattice((2,)), Sphere(3)), shared=False)


@final
class ZonalLayer(Bijection):
    """Move every point along its meridian: the height over the last axis by a monotone map; the identity at the start.

        (√(1 - t²) u, t) -> (√(1 - T²) u, T(t))

    As smooth as T, everywhere. Chains of these with `HouseholderRotation`s between them form many modes with few
    parameters, which chains of Möbius maps cannot.

    Args:
        field: `Sphere(D)` on sites, D ≥ 1.
        transform: T, `HeightMixture()` (smooth) or `HeightSpline()`.
        n_context: number of couplings that T depends on, through one hidden layer.

    Symmetries: rotations and reflections that fix the last axis; translations and the point group.
    """

    def __init__(
        self,
        field: FieldSpace,
        transform: HeightTransform | None = None,
        n_context: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.domain = self.codomain = field
        require_sphere(field)
        self.transform = transform or HeightMixture()
        self.network = HeightNetwork(0, self.transform.n_parameters, NetworkSpec(n_context=n_context), dtype)
        self.symmetries: tuple[Symmetry, ...] = (Translations(), PointGroup(), AxisRotations())

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(z, context, inverse=False)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(x, context, inverse=True)

    def _move(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        axis = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)[-1]
        y, log_det = zonal(x, axis, self.transform, self.network([], context, x[..., 0]), inverse)
        return y, log_det.flatten(1).sum(1)

    @classmethod
    def examples(cls) -> Iterator[ZonalLayer]:
        """On S¹, S² and S³, one with couplings."""
        yield cls(FieldSpace(Lattice((1,)), Sphere(1)), HeightMixture(2))
        yield cls(FieldSpace(Lattice((2, 2)), Sphere(2)), HeightSpline(3), n_context=1)
        yield cls(FieldSpace(Lattice((2,)), Sphere(3)), HeightMixture(3))


@final
class HouseholderRotation(Bijection):
    """x_s = R z_s with a trainable rotation R, a product of reflections 1 - 2 v vᵀ/|v|²; the identity at the start.

    Exactly orthogonal for all v, with log|det| = 0. An even number of reflections, D + 1 or D + 2 of them, reaches all
    of SO(D + 1); they start in equal pairs. Cost O(V D) for each reflection.

    Args:
        field: `Sphere(D)` on sites, D ≥ 1.
        n_reflections: an even number; by default D + 1, or D + 2 where that is odd.

    Symmetries: translations, the point group, the sign flip.
    References: J. Tomczak and M. Welling, 1611.09630.
    """

    def __init__(self, field: FieldSpace, n_reflections: int | None = None, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.domain = self.codomain = field
        n = require_sphere(field) + 1
        count = n + n % 2 if n_reflections is None else n_reflections
        if type(count) is not int or count < 2 or count % 2:
            raise ValueError(
                f"expected an even number n_reflections >= 2, got {count!r}: an odd one mirrors the sphere"
            )
        self.symmetries: tuple[Symmetry, ...] = (Translations(), PointGroup(), SignFlip())
        self.normals = nn.Parameter(torch.eye(n, dtype=dtype)[[k // 2 % n for k in range(count)]])

    def matrix(self) -> Tensor:  # -> (D + 1, D + 1)
        """R."""
        product = torch.eye(self.normals.shape[1], dtype=self.normals.dtype, device=self.normals.device)
        for v in self.normals / self.normals.norm(dim=-1, keepdim=True):
            product = product - 2 * torch.outer(v, v @ product)
        return product

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z @ self.matrix().mT, _zero(z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x @ self.matrix(), _zero(x)

    @torch.no_grad()
    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        """The score turns with the field."""
        turn = self.matrix().mT
        return Scored(z @ turn, z.new_zeros(len(z)), score @ turn)

    @classmethod
    def examples(cls) -> Iterator[HouseholderRotation]:
        """On S¹, S² and S³."""
        yield from (cls(FieldSpace(Lattice((2,)), Sphere(n))) for n in (1, 2, 3))


def _zero(x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
    """Zeros that may be differentiated, as other log-dets may."""
    return (0 * x).flatten(1).sum(1)
