"""Coarsening: a field as its block field and explicit coordinates of the details, exactly and back.

`HierarchicalFlow` never needs coordinates of the details; plots, quadrature, normflows and other models do.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import reduce
from itertools import pairwise
from typing import final

import torch
from normflows.flows import Flow
from torch import Tensor, nn

from flows.bijection import Bijection
from flows.layers.continuous import ContinuousFlow, VectorFieldSpec
from flows.layers.pointwise import Pointwise
from lattices.blocking import Blocking, BlockPointGroup
from lattices.fields import FieldSpace, Real, Transformation
from lattices.invariance import (
    ColourPermutations,
    PointGroup,
    SignFlip,
    Symmetry,
    Translations,
    shared_symmetries,
)
from lattices.lattice import Lattice

HAAR = Blocking("average", 2)
Parts = tuple[Tensor, Tensor]
"""The block field (batch, *coarse event) and the details (batch, *detail_shape)."""


class Coarsening(Flow, ABC):
    """A bijection x ↔ (c, d) of a field with its block field c and details d, with an exact log-det.

    Both directions return log|det| of the map they have just applied. It is a normflows `Flow` of lists too,
    `forward([c, d])` = merge and `inverse(x)` = split: one of the `merges` of a `normflows.MultiscaleFlow`, whose
    bases and flows can be ours.
    """

    field: FieldSpace
    blocking: Blocking
    symmetries: tuple[Symmetry, ...] = ()

    @abstractmethod
    def split(self, x: Tensor, context: Tensor | None = None) -> tuple[Parts, Tensor]:
        """(c, d) and log|det ∂(c, d)/∂x|.  (batch, *event) -> ((batch, *coarse), (batch, *detail_shape)), (batch,)"""

    @abstractmethod
    def merge(self, block: Tensor, details: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x and log|det ∂x/∂(c, d)|.  (batch, *coarse), (batch, *detail_shape) -> (batch, *event), (batch,)"""

    @property
    def coarse(self) -> FieldSpace:
        """The space of the block field."""
        return FieldSpace(self.blocking.coarse(self.field.lattice), self.field.target)

    @property
    def detail_shape(self) -> tuple[int, ...]:
        """The shape of the details of one configuration: size^d - 1 channels on the coarse lattice."""
        return (self.blocking.size**self.field.lattice.dimension - 1, *self.coarse.event_shape)

    def induced(self) -> Iterator[tuple[Transformation, Transformation]]:
        """Pairs (g, g') with block(g·x) = g'·block(x): what a symmetry of the field does to the block field."""
        internal = (claim for claim in self.symmetries if not isinstance(claim, Translations | BlockPointGroup))
        for claim in dict.fromkeys((Translations(), PointGroup(), *internal)):
            fine = self.blocking.lift(claim)
            if fine.follows_from(self.symmetries):
                yield from zip(fine.generators(self.field), claim.generators(self.coarse))

    def forward(self, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """normflows' name for `merge`."""
        return self.merge(*parts)

    def inverse(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """normflows' name for `split`."""
        parts, log_det = self.split(x)
        return list(parts), log_det

    @classmethod
    def examples(cls) -> Iterator[Coarsening]:
        """Small instances: documentation first, test data second."""
        raise NotImplementedError(f"{cls.__name__} gives no examples(): yield a few small instances")


@final
class OrthogonalSplit(Coarsening):
    """The split of every block by an orthogonal matrix W whose first row gives the block field; log|det| = 0.

        (c, d)_X = W (x in block X);    average: W = ⊗ cosine bases, Haar's for size 2;    decimation: W = 1

    Details are wavelet coefficients (average), with definite parity under reflections of a block, or the sites that
    decimation drops. The block field is that of `Blocking`. Cost O(V size^d).

    Args:
        field: on sites; averages need real numbers.
        blocking: which block field, of which size.
    Symmetries: translations by blocks, their point group (acting on c; it mixes d), Z₂, and colours.
    References: Haar (1910), Math. Ann. 69, 331; Ahmed, Natarajan & Rao (1974), IEEE Trans. Comput. 23, 90.
    """

    basis: Tensor

    def __init__(self, field: FieldSpace, blocking: Blocking = HAAR, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        if not isinstance(field.target, Real) or field.cells != "sites":
            raise TypeError(f"expected real fields on sites, got {field}: use FieldSpace(lattice)")
        blocking.coarse(field.lattice)
        self.field, self.blocking = field, blocking
        colours = (ColourPermutations(field.target.n + 1),) if field.target.n > 1 else ()
        self.symmetries = tuple(map(blocking.lift, (Translations(), PointGroup(), SignFlip(), *colours)))
        line = torch.eye(blocking.size) if blocking.kind == "decimation" else cosine_basis(blocking.size)
        self.register_buffer("basis", reduce(torch.kron, [line] * field.lattice.dimension).to(dtype), persistent=False)

    def split(self, x: Tensor, context: Tensor | None = None) -> tuple[Parts, Tensor]:
        size, d = self.blocking.size, self.field.lattice.dimension
        blocked = x
        for axis in range(1, 2 * d, 2):
            blocked = blocked.unflatten(axis, (-1, size))
        blocked = blocked.movedim(list(range(2, 2 * d + 1, 2)), list(range(1, d + 1))).flatten(1, d)
        rotated = torch.einsum("ws,bs...->bw...", self.basis.to(x.dtype), blocked)
        return (rotated[:, 0], rotated[:, 1:]), x.new_zeros(len(x))

    def merge(self, block: Tensor, details: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        size, d = self.blocking.size, self.field.lattice.dimension
        rotated = torch.cat([block[:, None], details], 1)
        blocked = torch.einsum("ws,bw...->bs...", self.basis.to(block.dtype), rotated).unflatten(1, [size] * d)
        x = blocked.movedim(list(range(1, d + 1)), list(range(2, 2 * d + 1, 2)))
        return x.reshape(len(block), *self.field.event_shape), block.new_zeros(len(block))

    def extra_repr(self) -> str:
        return f"{self.field}, {self.blocking}"

    @classmethod
    def examples(cls) -> Iterator[OrthogonalSplit]:
        """Haar in one to four dimensions, with colours, of three sites; decimation in one and two."""
        yield cls(FieldSpace(Lattice((4, 6))))
        yield cls(FieldSpace(Lattice((6,))))
        yield cls(
            FieldSpace(
                Lattice(
                    (2, 4),
                ),
                Real(2),
            )
        )
        yield cls(FieldSpace(Lattice((3, 6))), Blocking("average", 3))
        yield cls(FieldSpace(Lattice((2, 4, 4))))
        yield cls(FieldSpace(Lattice((2, 2, 4, 2))))
        yield cls(FieldSpace(Lattice((4, 4))), Blocking("decimation"))
        yield cls(FieldSpace(Lattice((9,))), Blocking("decimation", 3))


@final
class Mapped(Coarsening):
    """A learned map before the split: x = f(merge(c, d)), so that (c, d) = split(f⁻¹(x)).

        log|det ∂x/∂(c, d)| = log|det ∂f/∂z| + log|det ∂z/∂(c, d)|,    z = merge(c, d)

    With a local f the block field becomes a learned, nonlinear function of its neighbourhood. Cost: that of both.

    Args:
        bijection: f, on the field that is split; one that starts as the identity starts as the plain split.
        coarsening: the split of z.
    Symmetries: those of both.
    """

    def __init__(self, bijection: Bijection, coarsening: Coarsening) -> None:
        super().__init__()
        if not bijection.domain == bijection.codomain == coarsening.field:
            raise ValueError(f"expected a map of {coarsening.field}, got {bijection}: build both on one lattice")
        self.bijection, self.coarsening = bijection, coarsening
        self.field, self.blocking = coarsening.field, coarsening.blocking
        self.symmetries = shared_symmetries(coarsening.symmetries, bijection.symmetries)

    def split(self, x: Tensor, context: Tensor | None = None) -> tuple[Parts, Tensor]:
        z, log_det = self.bijection.inverse(x, context)
        parts, step = self.coarsening.split(z, context)
        return parts, log_det + step

    def merge(self, block: Tensor, details: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.coarsening.merge(block, details, context)
        x, step = self.bijection(z, context)
        return x, log_det + step

    @classmethod
    def examples(cls) -> Iterator[Mapped]:
        """An odd map on every site before Haar; a conditional flow of neighbours before decimation."""
        field = FieldSpace(Lattice((4, 2)))
        yield cls(Pointwise(field), OrthogonalSplit(field))
        spec = VectorFieldSpec((0.7,), radius=1.0, n_times=1, n_context=1)
        flow = ContinuousFlow(field, spec, n_steps=6, method="dop853")
        yield cls(flow, OrthogonalSplit(field, Blocking("decimation")))


@final
class Pyramid(nn.Module):
    """Several coarsenings in a row, fine → coarse: x ↔ [block field, details of every level, coarse → fine].

    The list is that of latent variables of a `normflows.MultiscaleFlow` with these `merges`.

    Args:
        coarsenings: the first splits the finest field, each other one the block field of the one before.
    """

    def __init__(self, *coarsenings: Coarsening) -> None:
        super().__init__()
        if not coarsenings:
            raise ValueError("expected at least one coarsening, got none: pass them fine → coarse")
        for fine, coarse in pairwise(coarsenings):
            if fine.coarse != coarse.field:
                raise ValueError(f"expected a split of {fine.coarse}, got one of {coarse.field}: order fine → coarse")
        self.coarsenings = nn.ModuleList(coarsenings)

    @classmethod
    def orthogonal(cls, field: FieldSpace, times: int, blocking: Blocking = HAAR) -> Pyramid:
        """The orthogonal split, that many times."""
        lattices = [blocking.coarse(field.lattice, k) for k in range(times + 1)][:-1]
        return cls(*(OrthogonalSplit(FieldSpace(lattice, field.target), blocking) for lattice in lattices))

    @property
    def merges(self) -> list[Coarsening]:
        """Coarse → fine, as `normflows.MultiscaleFlow` wants them."""
        return list(reversed(self.coarsenings))  # type: ignore[arg-type]

    def split(self, x: Tensor, context: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """[c, d of the coarsest level, …, d of the finest] and the log-det of that map."""
        log_det, details = x.new_zeros(len(x)), []
        for coarsening in reversed(self.merges):
            (x, d), step = coarsening.split(x, context)
            details.append(d)
            log_det = log_det + step
        return [x, *reversed(details)], log_det

    def merge(self, parts: list[Tensor], context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x and the log-det of that map."""
        x, *details = parts
        if len(details) != len(self.coarsenings):
            raise ValueError(f"expected 1 + {len(self.coarsenings)} parts, got {len(parts)}: block field, then details")
        log_det = x.new_zeros(len(x))
        for coarsening, d in zip(self.merges, details):
            x, step = coarsening.merge(x, d, context)
            log_det = log_det + step
        return x, log_det


def cosine_basis(size: int) -> Tensor:  # -> (size, size), float64
    """The orthonormal cosines w_kn ∝ cos(π k (n + ½) / size); row 0 is constant, row k has k nodes and parity (-1)ᵏ."""
    k = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi / size * k[:, None] * (k + 0.5))
    return rows / rows.norm(dim=1, keepdim=True)
