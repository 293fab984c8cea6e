"""Potential maps on spheres: exponential maps of gradients, exact diffeomorphisms for all parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flows.architectures.architecture import Architecture
from flows.bases import White
from flows.bijection import Bijection, Chain
from flows.distribution import Transformed
from flows.layers.concave_map import concave_map
from flows.layers.exponential_map import ExponentialMap
from flows.layers.implicit_map import ImplicitMap
from flows.transforms.network_potentials import NetworkPotential
from flows.transforms.potentials import PolynomialPotential, RadialPotential, checked_size
from flows.transforms.sphere_features import Coordinates
from lattices.action import Action
from lattices.fields import FieldSpace, Sphere

KINDS = ("radial", "polynomial", "concave", "implicit")


@dataclass(frozen=True)
class PotentialFlow(Architecture):
    """`n_layers` potential maps in a row, on the uniform density of points on spheres, one on each site.

    Sites move independently with the same maps: made for a single point on S^D, and a first or last step elsewhere.

    Args:
        kind: "radial" or "polynomial" exponential maps, "concave" maps, or "implicit" maps of a network.
        n_layers: maps.
        n_components: terms of each potential that is not a network; for each degree of a polynomial.
        hidden: widths of a network, whose soft maximum has `n_components` pieces.
        degree: of a polynomial.
        zonal: implicit maps that commute with rotations about the last axis.
    """

    kind: str = "concave"
    n_layers: int = 3
    n_components: int = 24
    hidden: tuple[int, ...] = (8,)
    degree: int = 2
    zonal: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"expected a kind, one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.zonal and self.kind != "implicit":
            raise ValueError(f"expected kind 'implicit' for zonal maps, got {self.kind!r}: only networks can be zonal")
        for name, least in (("n_layers", 1), ("n_components", 1 + (self.kind == "implicit")), ("degree", 1)):
            checked_size(name, getattr(self, name), least)

    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        field = action.field
        if not isinstance(field.target, Sphere):
            raise TypeError(f"expected an action of unit vectors, got {field}: use Sphere(n) on sites")
        return Transformed(White(field, dtype), Chain(*(self._layer(field, dtype) for _ in range(self.n_layers))))

    def _layer(self, field: FieldSpace, dtype: torch.dtype) -> Bijection:
        n = field.target.shape[0]
        if self.kind == "concave":
            return concave_map(field, self.n_components, dtype=dtype)
        if self.kind == "implicit":
            features = Coordinates(n, self.zonal, dtype)
            return ImplicitMap(field, NetworkPotential(features, self.hidden, self.n_components, dtype=dtype))
        if self.kind == "radial":
            return ExponentialMap(field, RadialPotential(n, self.n_components, dtype))
        return ExponentialMap(field, PolynomialPotential(n, self.n_components, self.degree, dtype))

    @classmethod
    def examples(cls) -> Iterator[PotentialFlow]:
        """One of every kind."""
        yield cls("radial", 2, n_components=3)
        yield cls("polynomial", 2, n_components=3)
        yield cls("concave", 2, n_components=3)
        yield cls("implicit", 2, n_components=3, hidden=(4,), zonal=True)
