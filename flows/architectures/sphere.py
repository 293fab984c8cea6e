"""Flows on a single point of a sphere: triangular maps, or maps along meridians, with rotations between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from flows.architectures.architecture import Architecture
from flows.bases import White
from flows.bijection import Bijection, Chain
from flows.conditioners.height_networks import NetworkSpec
from flows.distribution import Transformed
from flows.layers.mobius import HouseholderRotation, ZonalLayer
from flows.layers.recursive_sphere import RecursiveSphere, require_sphere
from flows.transforms.circular import CircularSpline
from flows.transforms.circular_mixture import CircularMixture
from flows.transforms.elementwise import ElementwiseTransform
from flows.transforms.heights import HeightMixture, HeightSpline, HeightTransform
from lattices.action import Action
from lattices.fields import FieldSpace

KINDS = ("recursive", "zonal")
TRANSFORMS = ("spline", "mixture")


@dataclass(frozen=True)
class SphereFlow(Architecture):
    """`n_layers` of `RecursiveSphere`, or of `ZonalLayer`, each followed by a rotation, on the uniform density of Sᴰ.

    Args:
        kind: "recursive", networks that tell each coordinate the ones before it; "zonal", one map of heights per layer
            over an axis of its own, without networks: 25 numbers for each of, say, 8 layers, and no special points.
        transform: "spline" moves angles and heights by splines with a closed inverse; "mixture" moves the angles, and
            the heights of zonal layers, by mixtures of Möbius maps, infinitely differentiable, slower to invert.
        n_layers: maps in a row.
        n_bins: bins of a spline, components of a mixture.
        hidden: widths of the networks in recursive layers.
        n_context: number of couplings the flow is conditioned on.
    """

    kind: str = "recursive"
    transform: str = "spline"
    n_layers: int = 2
    n_bins: int = 8
    hidden: tuple[int, ...] = (16,)
    n_context: int = 0

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("transform", TRANSFORMS)):
            if getattr(self, name) not in known:
                raise ValueError(f"expected {name}, one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.n_layers < 1:
            raise ValueError(f"expected n_layers >= 1, got {self.n_layers}: 2 is a good start")
        NetworkSpec(self.hidden, self.n_context), self._angle(), self._height()

    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        field = action.field
        require_sphere(field)
        if field.lattice.volume != 1:
            raise ValueError(f"expected a single point on a sphere, got {field}: this flow does not couple sites")
        step = self._zonal if self.kind == "zonal" else self._recursive
        steps = (step(field, dtype) for _ in range(self.n_layers))
        return Transformed(White(field, dtype), Chain(*(layer for layers in steps for layer in layers)))

    def _recursive(self, field: FieldSpace, dtype: torch.dtype) -> tuple[Bijection, Bijection]:
        spec = NetworkSpec(self.hidden, self.n_context)
        layer = RecursiveSphere(field, self._angle(), HeightSpline(self.n_bins), spec, dtype)
        return layer, HouseholderRotation(field, dtype=dtype)

    def _zonal(self, field: FieldSpace, dtype: torch.dtype) -> tuple[Bijection, Bijection]:
        """With random axes, and unequal components of a mixture: equal ones would learn the same."""
        layer, rotation = (
            ZonalLayer(field, self._height(), self.n_context, dtype),
            HouseholderRotation(field, dtype=dtype),
        )
        nn.init.normal_(rotation.normals)
        if self.transform == "mixture":
            nn.init.normal_(layer.network.start, std=0.3)
        return layer, rotation

    def _angle(self) -> ElementwiseTransform:
        return CircularMixture(self.n_bins) if self.transform == "mixture" else CircularSpline(self.n_bins)

    def _height(self) -> HeightTransform:
        return HeightMixture(self.n_bins) if self.transform == "mixture" else HeightSpline(self.n_bins)

    @classmethod
    def examples(cls) -> Iterator[SphereFlow]:
        """Both kinds, both transforms."""
        yield cls(n_bins=3, hidden=(3,))
        yield cls(transform="mixture", n_layers=1, n_bins=3, hidden=(3,), n_context=1)
        yield cls(kind="zonal", n_bins=2)
