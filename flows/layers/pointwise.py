"""Pointwise layer: one learned monotone map on every site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from flows.bijection import Bijection
from flows.transforms.elementwise import ElementwiseTransform
from flows.transforms.monotone import OddMonotone
from flows.transforms.odd_spline import OddSpline
from lattices.fields import FieldSpace, Real
from lattices.invariance import PointGroup, SignFlip, Translations
from lattices.lattice import Lattice


@final
class Pointwise(Bijection):
    """x_s = f(z_s; p) with the same parameters p on every site s: a learned change of variables, strictly local.

        log|det| = Σ_s log f'(z_s; p)

    The only map of a field that needs no neighbours; it starts as the identity. Cost O(V).

    Args:
        field: real scalar fields on sites.
        transform: f, e.g. `OddMonotone()` for the tails of φ⁴.
    Symmetries: translations, the point group, Z₂ if every parameter of f is even.
    """

    def __init__(
        self, field: FieldSpace, transform: ElementwiseTransform | None = None, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        if field.target != Real() or field.cells != "sites":
            raise TypeError(f"expected a real scalar field on sites, got {field}: use FieldSpace(lattice)")
        self.domain = self.codomain = field
        self.transform = transform or OddMonotone()
        odd = "odd" not in self.transform.parity
        self.symmetries = (Translations(), PointGroup(), *(SignFlip(),) * odd)
        self.shape = nn.Parameter(torch.zeros(self.transform.n_parameters, dtype=dtype))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_slope = self.transform.forward(z, self.shape.expand(*z.shape, -1))
        return x, log_slope.flatten(1).sum(1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slope = self.transform.inverse(x, self.shape.expand(*x.shape, -1))
        return z, log_slope.flatten(1).sum(1)

    @classmethod
    def examples(cls) -> Iterator[Pointwise]:
        """A smooth odd map, and an odd spline on a line."""
        yield cls(FieldSpace(Lattice((4, 2))))
        yield cls(FieldSpace(Lattice((5,))), OddSpline(3))
