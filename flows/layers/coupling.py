"""Checkerboard coupling: half of the sites is transformed, with parameters that depend on the other half."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from flows.bijection import Bijection, Scored
from flows.conditioners.conditioner import Conditioner
from flows.conditioners.parity_convolutions import ConvolutionSpec, ParityConvolutions
from flows.transforms.affine import Affine
from flows.transforms.elementwise import ElementwiseTransform
from flows.transforms.monotone import OddMonotone
from flows.transforms.odd_spline import OddSpline
from flows.transforms.spline import RationalQuadraticSpline
from lattices.fields import FieldSpace, Real
from lattices.invariance import PointGroup, SignFlip, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.partitions import checkerboard


@final
class Coupling(Bijection):
    """Transform the sites of one colour of a checkerboard, given those of the other; the identity at the start.

        x_A = T(z_A; p(z_B)),  x_B = z_B,  log|det| = Σ_A log|T'|

    Only the active half goes through the transform (packed, V/2 values). The inverse costs what the forward map
    costs. The score needs no inverse and no second pass through the network, see `push_score`.

    Args:
        field: real scalar fields on sites, even extents.
        transform: the elementwise map T.
        conditioner: the network p, built for the lattice and with the parities of `transform`.
        colour: 0 moves the sites with even x_1 + … + x_d, 1 the others.

    Symmetries: translations that keep the colours; of the point group and the sign flip what the conditioner has.
    References: Albergo et al. (2019), 1904.12072.
    """

    def __init__(
        self, field: FieldSpace, transform: ElementwiseTransform, conditioner: Conditioner, colour: int = 0
    ) -> None:
        super().__init__()
        self.domain = self.codomain = _checked_field(field)
        if conditioner.lattice != field.lattice or conditioner.parity != transform.parity:
            raise ValueError(
                f"expected a conditioner for {field.lattice} and {transform}, got one for {conditioner.lattice} "
                f"and {len(conditioner.parity)} parameters: build it with parity=transform.parity"
            )
        if colour not in (0, 1):
            raise ValueError(f"expected colour 0 or 1, got {colour!r}: alternate them from layer to layer")
        self.partition = checkerboard(field.lattice)
        self.transform, self.conditioner, self.colour = transform, conditioner, colour
        inherited = (s for s in conditioner.symmetries if s in (PointGroup(), SignFlip()))
        self.symmetries: tuple[Symmetry, ...] = (Translations(parity=True), *inherited)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        half, parameters = self._split(z, context)
        return self._merge(z, *self.transform.forward(half, parameters))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        half, parameters = self._split(x, context)
        return self._merge(x, *self.transform.inverse(half, parameters))

    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        """Carry the score through the triangular Jacobian; one pass through the network and back.

        s'_A = (s_A - ∂_A log|T'|) / T',   s'_B = s_B - ∂_B [log|det| + s'_A · x_A]
        """
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            half, parameters = self._split(z, context)
            half = half.detach().requires_grad_()
            moved, log_slope = self.transform.forward(half, parameters)
            (bend,) = torch.autograd.grad(log_slope.sum(), half, retain_graph=True, materialize_grads=True)
            pushed = ((self._active(score) - bend) * torch.exp(-log_slope)).detach()
            (pull,) = torch.autograd.grad(log_slope.sum() + (pushed * moved).sum(), z)
        x, log_det = self._merge(z.detach(), moved.detach(), log_slope.detach())
        return Scored(x, log_det, self._merge(score - pull, pushed, log_slope)[0])

    def _active(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, V/2)
        return self.partition.split(x)[self.colour].flatten(1)

    def _split(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The active values (batch, V/2) and their parameters (batch, V/2, n_parameters)."""
        active = self.partition.indices[self.colour]
        background = x.flatten(1).index_fill(1, active, 0.0).view_as(x)
        return self._active(x), self.conditioner(background, active, context)

    def _merge(self, x: Tensor, moved: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        """x with its active values replaced, and the log-det."""
        parts = list(self.partition.split(x))
        parts[self.colour] = moved.view_as(parts[self.colour])
        return self.partition.merge(parts), log_slope.sum(1)

    @classmethod
    def examples(cls) -> Iterator[Coupling]:
        """Every kind of transform, with and without the point group, the sign flip and context, in d = 1…4."""
        recipes: list[tuple[tuple[int, ...], ElementwiseTransform, ConvolutionSpec]] = [
            ((4, 4), Affine(), ConvolutionSpec((3, 2))),
            ((2, 4), RationalQuadraticSpline(n_bins=3), ConvolutionSpec((3,), n_context=2)),
            ((2, 2, 2), OddSpline(n_bins=3), ConvolutionSpec((2,), odd=False)),
            ((6,), OddMonotone(), ConvolutionSpec((2,), kernel_size=5, point_group=False)),
            ((2, 2, 2, 2), Affine(limit=1.0), ConvolutionSpec((2,))),
        ]
        for colour, (extents, transform, spec) in enumerate(recipes):
            lattice = Lattice(extents)
            conditioner = ParityConvolutions(lattice, transform.parity, spec)
            yield cls(FieldSpace(lattice), transform, conditioner, colour % 2)


def _checked_field(field: FieldSpace) -> FieldSpace:
    if field.target != Real() or field.cells != "sites":
        raise TypeError(f"expected a real scalar field on sites, got {field}: use FieldSpace(lattice)")
    return field
