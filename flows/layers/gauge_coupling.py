"""Plaquette coupling of U(1) links: plaquettes are moved by circular maps, and links follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from flows.bijection import Bijection, Scored
from flows.conditioners.loop_convolutions import LoopConvolutions, LoopSpec
from flows.transforms.circular import CircularSpline, wrap
from flows.transforms.circular_mixture import CircularMixture
from flows.transforms.elementwise import ElementwiseTransform
from lattices.fields import FieldSpace, Links
from lattices.gauge import CentreSymmetry, ChargeConjugation, GaugeInvariance
from lattices.invariance import Symmetry
from lattices.lattice import Lattice
from lattices.link_partitions import LinkPartition, Transport, link_parity, link_stripes
from symmetries.lie import U1


@final
class PlaquetteCoupling(Bijection):
    """Move the plaquette P of every active link, given frozen loops, by moving the link; the identity at the start.

        P ↦ h(P; p(frozen loops)),  θ ↦ θ + h(P) - P,  log|det| = Σ log h'(P)

    The other plaquettes of an active link change by the opposite amount. The inverse costs what h⁻¹ costs; the score
    needs no inverse, see `push_score`. Cost O(V) and the convolutions.

    Args:
        field: U(1) links.
        partition: the active links, from `link_stripes` or `link_parity`.
        transform: h, a map of the circle: `CircularMixture` or `CircularSpline`.
        spec: the network p.
        dtype: of the weights.

    Symmetries: gauge, charge conjugation, centre, translations that keep the partition.
    References: Kanwar et al. (2020), 2003.06413, section III.
    """

    def __init__(
        self,
        field: FieldSpace,
        partition: LinkPartition,
        transform: ElementwiseTransform | None = None,
        spec: LoopSpec | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if field.target != Links(U1()) or field.cells != "links" or field.lattice != partition.lattice:
            raise TypeError(f"expected U(1) links on {partition.lattice}, got {field}: use U1Gauge(…).field")
        self.domain = self.codomain = field
        self.transform = transform or CircularMixture()
        if not isinstance(self.transform, CircularMixture | CircularSpline):
            raise TypeError(f"expected a map of the circle, got {transform}: use CircularMixture() or CircularSpline()")
        self.partition = partition
        self.conditioner = LoopConvolutions(field, partition, self.transform.parity, spec, dtype)
        self.staple = Transport(field.lattice, partition.plaquette, partition.sites, skip=1)
        self.symmetries: tuple[Symmetry, ...] = (
            GaugeInvariance(), ChargeConjugation(), CentreSymmetry(), partition.translations,
        )  # fmt: skip

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        loops, staples = self._split(z)
        return self._merge(z, staples, *self.transform.forward(loops, self.conditioner(z, context)))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        loops, staples = self._split(x)
        return self._merge(x, staples, *self.transform.inverse(loops, self.conditioner(x, context)))

    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        """Carry the score through the triangular Jacobian; one pass through the network and back.

        s'_A = (s_A - ∂_A log h') / h',   s'_B = s_B - ∂_B [log|det| + s'_A · θ'_A]
        """
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            _, staples = self._split(z)
            links = self.partition.split(z).detach().requires_grad_()
            moved, log_slope = self.transform.forward(wrap(links + staples), self.conditioner(z, context))
            (bend,) = torch.autograd.grad(log_slope.sum(), links, retain_graph=True, materialize_grads=True)
            pushed = ((self.partition.split(score) - bend) * torch.exp(-log_slope)).detach()
            (pull,) = torch.autograd.grad(log_slope.sum() + (pushed * (moved - staples)).sum(), z)
        x, log_det = self._merge(z.detach(), staples.detach(), moved.detach(), log_slope.detach())
        return Scored(x, log_det, self.partition.merge(score - pull, pushed))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:  # -> 2 × (batch, n)
        """The active plaquettes, and their parts that stay."""
        staples = self.staple(x)
        return wrap(self.partition.split(x) + staples), staples

    def _merge(self, x: Tensor, staples: Tensor, loops: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        """The field with these active plaquettes, and the log-det."""
        return self.partition.merge(x, wrap(loops - staples)), log_slope.sum(1)

    @classmethod
    def examples(cls) -> Iterator[PlaquetteCoupling]:
        """Both kinds of maps, with and without context, on stripes and parities in two, three and four dimensions."""
        small = LoopSpec((2,))
        recipes: list[tuple[LinkPartition, ElementwiseTransform, LoopSpec]] = [
            (link_stripes(Lattice((4, 4)), 0, 1), CircularMixture(3), LoopSpec((3, 2))),
            (link_stripes(Lattice((4, 4)), 1, 2), CircularSpline(4), LoopSpec((2,), n_context=2)),
            (link_stripes(Lattice((2, 4, 2)), 0, 0), CircularMixture(2), LoopSpec((2,), rectangles=False)),
            (link_stripes(Lattice((2, 2, 2, 2)), 3, 1, period=2), CircularSpline(3), small),
            (link_parity(Lattice((2, 4)), 1, 0), CircularMixture(2), small),
        ]
        for partition, transform, spec in recipes:
            yield cls(FieldSpace(partition.lattice, Links(U1()), "links"), partition, transform, spec)
