"""Flows on the sphere S³, used on the group SU(2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from torch import Tensor

from flows.bijection import Bijection
from flows.layers.mobius import ZonalLayer
from flows.layers.recursive_sphere import RecursiveSphere
from lattices.fields import FieldSpace, Links, Sphere
from lattices.invariance import Translations
from lattices.lattice import Lattice
from symmetries.lie import SU2
from symmetries.quaternions import quaternion_from_su2, su2_from_quaternion


@final
class AsSU2(Bijection):
    """A map of unit vectors in S³ as a map of SU(2) elements U = a_0 + i a·σ, with the same log-det.

    The area of S³ is 2π² times the Haar measure, on both sides of the map. Not gauge covariant: for one link, for
    maximal trees, or for plaquettes as independent variables.

    Args:
        bijection: from `Sphere(3)` on sites to itself.
        cells: "links", which a one-dimensional lattice has as many of as sites, or "sites".

    Symmetries: translations, if `bijection` has them.
    """

    def __init__(self, bijection: Bijection, cells: str = "links") -> None:
        super().__init__()
        space = bijection.domain
        if (space.target, space.cells) != (Sphere(3), "sites") or bijection.codomain != space:
            raise TypeError(
                f"expected a map of Sphere(3) on sites to itself, got one of {space}: build it for Sphere(3)"
            )
        if cells == "links" and space.lattice.dimension != 1:
            raise ValueError(f'expected a one-dimensional lattice, got {space.lattice}: pass cells="sites"')
        self.bijection = bijection
        self.domain = self.codomain = FieldSpace(space.lattice, Links(SU2()), cells)
        self.symmetries = tuple(s for s in bijection.symmetries if isinstance(s, Translations))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, log_det = self.bijection.forward(self._sphere(z), context)
        return su2_from_quaternion(a).reshape(z.shape), log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, log_det = self.bijection.inverse(self._sphere(x), context)
        return su2_from_quaternion(a).reshape(x.shape), log_det

    def _sphere(self, u: Tensor) -> Tensor:  # (batch, *event) -> (batch, *extents, 4)
        return quaternion_from_su2(u).reshape(len(u), *self.bijection.domain.event_shape)

    @classmethod
    def examples(cls) -> Iterator[AsSU2]:
        """One link, two links in a row, and sites of a square."""
        yield cls(RecursiveSphere(FieldSpace(Lattice((1,)), Sphere(3))))
        yield cls(ZonalLayer(FieldSpace(Lattice((2,)), Sphere(3))))
        yield cls(ZonalLayer(FieldSpace(Lattice((2, 2)), Sphere(3)), n_context=1), "sites")
