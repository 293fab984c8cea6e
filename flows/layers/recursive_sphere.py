"""Triangular maps of spheres: one height after the other, then the angle on the circle that is left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from flows.bijection import Bijection
from flows.conditioners.height_networks import HeightNetwork, NetworkSpec
from flows.transforms.circular import CircularSpline
from flows.transforms.circular_mixture import CircularMixture
from flows.transforms.elementwise import ElementwiseTransform
from flows.transforms.heights import HeightMixture, HeightSpline, HeightTransform
from lattices.fields import FieldSpace, Sphere
from lattices.invariance import PointGroup, Symmetry, Translations
from lattices.lattice import Lattice


@final
class RecursiveSphere(Bijection):
    """Move heights and angle of a point on Sᴰ = [-1, 1]ᴰ⁻¹ × S¹, each given the ones before it; the identity at first.

        x = (√(1 - t_D²) z, t_D),  z ∈ Sᴰ⁻¹ likewise, …;    t_k -> T(t_k; ρ_k p_k(t_{k+1} … t_D)),  θ -> g(θ; ρ_1 p_1)
        log|det| = log g' + Σ_k { log T' + (k/2 - 1) log[(1 - T²) / (1 - t_k²)] },    ρ_k = Π_{j>k} √(1 - t_j²)

    ρ_k, the length of the first k + 1 components of z, makes every map the identity where its coordinate is not
    defined: the density is continuous on the whole sphere, poles included. Every site moves by itself, all alike.
    Exact both ways in one pass; cost O(V D) networks.

    Args:
        field: `Sphere(D)` on sites, D ≥ 1.
        angle: g, a map of the circle: `CircularMixture()` (smooth), `CircularSpline()` (closed inverse).
        height: T, `HeightSpline()` or `HeightMixture()`.
        spec: the networks p_k, and the number of couplings they are told.

    Symmetries: translations and the point group of the lattice.
    References: Rezende et al. (2020), 2002.02428, section 2.3 and algorithm 1.
    """

    def __init__(
        self,
        field: FieldSpace,
        angle: ElementwiseTransform | None = None,
        height: HeightTransform | None = None,
        spec: NetworkSpec | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.domain = self.codomain = field
        self.dimension, self.spec = require_sphere(field), spec or NetworkSpec()
        self.angle, self.height = angle or CircularMixture(), height or HeightSpline()
        self.symmetries: tuple[Symmetry, ...] = (Translations(), PointGroup())
        sizes = (self.height.n_parameters,) * (self.dimension - 1) + (self.angle.n_parameters,)
        self.networks = nn.ModuleList(HeightNetwork(m, n, self.spec, dtype) for m, n in enumerate(sizes))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(z, context, inverse=False)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(x, context, inverse=True)

    def _move(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        transform = self.height.inverse if inverse else self.height.forward
        heights: list[Tensor] = []  # of the latent point
        moved: list[Tensor] = []  # the components of the image, the last one first
        log_det, stretch = torch.zeros_like(x[..., 0]), torch.ones_like(x[..., 0])  # of the length ρ_k
        for k in range(self.dimension, 1, -1):
            radius = x[..., : k + 1].norm(dim=-1)
            t = (x[..., k] / radius.masked_fill(radius == 0, 1.0)).clamp(-1, 1)
            latent_radius = radius * stretch if inverse else radius
            image = transform(t, self._told(heights, latent_radius, context))
            heights.append(image.height if inverse else t)
            moved.append(stretch * (x[..., k] + radius * (image.height - t)))  # right derivatives where radius = 0
            stretch = stretch * torch.exp(image.log_ratio / 2)
            log_det = log_det + image.log_slope + (k / 2 - 1) * image.log_ratio
        radius = x[..., :2].norm(dim=-1)
        parameters = self._told(heights, radius * stretch if inverse else radius, context)
        circle, log_slope = self._turn(x[..., :2], parameters, inverse)
        y = torch.cat([stretch.unsqueeze(-1) * circle, *(part.unsqueeze(-1) for part in moved[::-1])], -1)
        return y / y.norm(dim=-1, keepdim=True), (log_det + log_slope).flatten(1).sum(1)

    def _turn(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:  # (..., 2) -> (..., 2)
        """Move the angle of plane vectors, of any length, 0 included."""
        angle = polar_angle(x)
        turned, log_slope = (self.angle.inverse if inverse else self.angle.forward)(angle, parameters)
        cosine, sine = torch.cos(turned - angle), torch.sin(turned - angle)
        first, second = x.unbind(-1)
        return torch.stack([cosine * first - sine * second, sine * first + cosine * second], -1), log_slope

    def _told(self, heights: list[Tensor], radius: Tensor, context: Tensor | None) -> Tensor:
        """What the network of the next coordinate says, times the latent length that is left for it."""
        return radius.unsqueeze(-1) * self.networks[len(heights)](heights, context, radius)

    @classmethod
    def examples(cls) -> Iterator[RecursiveSphere]:
        """On S¹, S², S³ and S⁴; with couplings, and on a lattice."""
        point, spec = Lattice((1,)), NetworkSpec((3,))
        yield cls(FieldSpace(point, Sphere(1)), CircularMixture(2))
        yield cls(FieldSpace(point, Sphere(2)), CircularMixture(3), HeightSpline(3), spec)
        yield cls(FieldSpace(Lattice((2, 2)), Sphere(2)), CircularSpline(3), HeightMixture(2), NetworkSpec((3,), 2))
        yield cls(FieldSpace(point, Sphere(3)), CircularSpline(3), HeightSpline(3), spec)
        yield cls(FieldSpace(point, Sphere(4)), CircularMixture(2), HeightMixture(2), NetworkSpec(()))


def require_sphere(field: FieldSpace) -> int:
    """D of a field of unit vectors in Sᴰ on sites; TypeError for others."""
    if field.cells != "sites" or not isinstance(field.target, Sphere):
        raise TypeError(f"expected unit vectors on sites, got {field}: use FieldSpace(lattice, Sphere(2)), say")
    return field.target.n


def polar_angle(x: Tensor) -> Tensor:  # (..., n) -> (...)
    """The angle of the first two components; 0, without a gradient, where both vanish."""
    pole = (x[..., 0] == 0) & (x[..., 1] == 0)
    return torch.atan2(x[..., 1], x[..., 0].masked_fill(pole, 1.0))
