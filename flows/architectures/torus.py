"""Flows on a torus: circular maps of the angles, one given the others, on the uniform measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flows.architectures.architecture import Architecture
from flows.bases import White
from flows.bijection import Bijection, Chain
from flows.conditioners.torus_networks import TorusSpec
from flows.distribution import Transformed
from flows.layers.torus import TorusAutoregressive, TorusCoupling, require_torus
from flows.layers.torus_coordinates import InCoordinates, separating_coordinates
from flows.transforms.circular import CircularSpline
from flows.transforms.circular_mixture import CircularMixture
from flows.transforms.circular_mobius import Mobius
from flows.transforms.elementwise import ElementwiseTransform
from lattices.action import Action
from lattices.fields import FieldSpace
from lattices.invariance import SignFlip, Symmetry
from lattices.spins import AngleShifts, GlobalRotations

KINDS = ("autoregressive", "coupling")
TRANSFORMS = ("mixture", "mobius", "spline")


@dataclass(frozen=True)
class TorusFlow(Architecture):
    """`n_layers` maps of D angles on `White(action.field)`, the identity at the start; of any action on a torus T^D.

    Shifts of angles that the action claims are kept by acting on invariant coordinates only, t ↦ -t by parities.

    Args:
        n_layers: of which every other one runs through the angles in reverse, or exchanges the two halves.
        kind: "autoregressive" (D >= 1) or "coupling" (at least two angles that are not invariant).
        transform: of each angle, "mixture", "mobius" or "spline".
        n_bins: components of a mixture, bins of a spline.
        n_harmonics: waves of every angle that a network sees.
        hidden: widths of the networks; () is linear in the waves.
        symmetric: keep the symmetries of the action.
        n_context: number of couplings the flow is conditioned on.
    """

    n_layers: int = 2
    kind: str = "autoregressive"
    transform: str = "mixture"
    n_bins: int = 4
    n_harmonics: int = 2
    hidden: tuple[int, ...] = ()
    symmetric: bool = True
    n_context: int = 0

    def __post_init__(self) -> None:
        if self.n_layers < 1:
            raise ValueError(f"expected n_layers >= 1, got {self.n_layers}: 2 is a good start")
        for name, known in (("kind", KINDS), ("transform", TRANSFORMS)):
            if getattr(self, name) not in known:
                raise ValueError(f"expected {name}, one of {', '.join(known)}, got {getattr(self, name)!r}")

    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        field, dimension = action.field, require_torus(action.field)
        claims = action.symmetries if self.symmetric else ()
        matrix = separating_coordinates(shift_directions(claims, dimension), dimension)
        n_free = sum(not any(_dot(row, s) for s in shift_directions(claims, dimension)) for row in matrix)
        if not n_free:
            raise ValueError(f"expected an action that depends on the angles, got {action}: its density is uniform")
        spec = TorusSpec(self.n_harmonics, self.hidden, SignFlip().follows_from(claims), self.n_context)
        layers = Chain(*(self._layer(field, list(range(n_free)), k, spec, dtype) for k in range(self.n_layers)))
        return Transformed(White(field, dtype), layers if n_free == dimension else InCoordinates(layers, matrix))

    def _layer(
        self, field: FieldSpace, angles: list[int], number: int, spec: TorusSpec, dtype: torch.dtype
    ) -> Bijection:
        if self.kind == "coupling":
            frozen, active = angles[number % 2 :: 2], angles[1 - number % 2 :: 2]
            return TorusCoupling(field, frozen, active, self._transform(), spec, dtype)
        order = angles[::-1] if number % 2 else angles
        return TorusAutoregressive(field, order, self._transform(), spec, dtype)

    def _transform(self) -> ElementwiseTransform:
        if self.transform == "mobius":
            return Mobius()
        return CircularMixture(self.n_bins) if self.transform == "mixture" else CircularSpline(self.n_bins)

    @classmethod
    def examples(cls) -> Iterator[TorusFlow]:
        """Autoregressive mixtures, and a conditional coupling flow of splines."""
        yield cls(n_layers=1, n_bins=2)
        yield cls(n_layers=2, kind="coupling", transform="spline", n_bins=3, hidden=(3,), n_context=1)


def shift_directions(claims: tuple[Symmetry, ...], dimension: int) -> list[tuple[int, ...]]:
    """The directions along which the angles may be shifted; all alike under global rotations."""
    directions = [claim.direction for claim in claims if isinstance(claim, AngleShifts)]
    return directions + [(1,) * dimension] * (GlobalRotations() in claims)


def _dot(row: tuple[int, ...], s: tuple[int, ...]) -> int:
    return sum(m * v for m, v in zip(row, s))
