"""Spectral coupling of SU(N) links: eigenangles of plaquettes are moved, and links follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from flows.bijection import Bijection
from flows.conditioners.loop_convolutions import LoopConvolutions, LoopSpec
from flows.transforms.spectral import SpectralSpline
from lattices.fields import FieldSpace, Links
from lattices.gauge import CentreSymmetry, ChargeConjugation, GaugeInvariance
from lattices.invariance import Symmetry
from lattices.lattice import Lattice
from lattices.link_partitions import LinkPartition, Transport, link_parity, link_stripes
from symmetries.lie import SUN


@final
class SpectralCoupling(Bijection):
    """Move the conjugacy class of the plaquette P of every active link, given frozen loops; the identity at the start.

        P ↦ h(P; p(frozen loops)),  U ↦ h(P) P† U,  log|det| = Σ log|det ∂h/∂P|

    with h(Ω P Ω†) = Ω h(P) Ω†, so that the layer commutes with gauge transformations. Cost O(V N³) and the
    convolutions; the inverse adds a few evaluations of the spline.

    Args:
        field: SU(N) links.
        partition: the active links, from `link_stripes` or `link_parity`.
        transform: h, for the same N.
        spec: the network p.
        dtype: of the weights, real.

    Symmetries: gauge, charge conjugation, centre, translations that keep the partition.
    References: Boyda et al. (2020), 2008.05456.
    """

    def __init__(
        self,
        field: FieldSpace,
        partition: LinkPartition,
        transform: SpectralSpline,
        spec: LoopSpec | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if field.target != Links(SUN(transform.n)) or field.cells != "links" or field.lattice != partition.lattice:
            raise TypeError(f"expected SU({transform.n}) links on {partition.lattice}, got {field}: change either")
        self.domain = self.codomain = field
        self.partition, self.transform = partition, transform
        self.conditioner = LoopConvolutions(field, partition, transform.parity, spec, dtype)
        self.plaquette = Transport(field.lattice, partition.plaquette, partition.sites)
        self.symmetries: tuple[Symmetry, ...] = (
            GaugeInvariance(), ChargeConjugation(), CentreSymmetry(), partition.translations,
        )  # fmt: skip

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(z, context, inverse=False)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(x, context, inverse=True)

    def _move(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        turn, log_det = self.transform.turn(self.plaquette(x), self.conditioner(x, context), inverse)
        return self.partition.merge(x, turn @ self.partition.split(x)), log_det.sum(1)

    @classmethod
    def examples(cls) -> Iterator[SpectralCoupling]:
        """SU(2), SU(3), SU(4), with and without context, on stripes and parities in two and three dimensions."""
        recipes: list[tuple[LinkPartition, SpectralSpline, LoopSpec]] = [
            (link_stripes(Lattice((2, 4)), 0, 1), SpectralSpline(2, n_bins=4), LoopSpec((3, 2))),
            (link_stripes(Lattice((4, 2)), 1, 0), SpectralSpline(3, n_bins=3), LoopSpec((2,), n_context=1)),
            (link_parity(Lattice((2, 2)), 0, 0), SpectralSpline(3, n_bins=3, depth=2), LoopSpec((2,))),
            (link_stripes(Lattice((2, 2)), 0, 1, period=2), SpectralSpline(4, n_bins=2), LoopSpec((2,))),
            (link_stripes(Lattice((2, 2, 2)), 2, 0, period=2), SpectralSpline(2, n_bins=3), LoopSpec((2,))),
        ]
        for partition, transform, spec in recipes:
            yield cls(FieldSpace(partition.lattice, Links(SUN(transform.n)), "links"), partition, transform, spec)
