"""Couplings of spins: exact in both directions in one pass each, on any lattice of circles or spheres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flows.architectures.architecture import Architecture
from flows.bases import White
from flows.bijection import Chain
from flows.conditioners.vector_convolutions import VectorSpec
from flows.distribution import Transformed
from flows.layers.spin_coupling import PARTITIONS, AxialMap, SpinCoupling
from flows.spanning_trees import SpanningTrees
from lattices.action import Action
from lattices.spins import require_spins

BASES = ("uniform", "trees")
TRANSFORMS = ("mobius", "spline")


@dataclass(frozen=True)
class SpinCouplingFlow(Architecture):
    """`n_layers` of `SpinCoupling` on alternating colours; the base at the start.

    No weight knows the size of the lattice: `load_state_dict` carries a trained flow to a larger one.

    Args:
        n_layers: couplings; as many as there are colours touch every spin: 2 of a checkerboard, d + 1 of corners.
        transform: "mobius" for a Möbius map of each spin, "spline" for a spline of its colatitude after that.
        n_bins: bins of a spline.
        n_rounds: such maps in a row for each spin of a layer.
        hidden: channels of the convolutions of each conditioner.
        kernel_size: odd number of sites per axis.
        partition: "checkerboard", or "corners" of 2 × … × 2 blocks, which leave no four-spin correlations behind.
        base: "uniform" for White(action.field), or "trees" for SpanningTrees.of(action), of XY and O(n).
        n_context: number of couplings the flow is conditioned on.
    """

    n_layers: int = 8
    transform: str = "spline"
    n_bins: int = 8
    n_rounds: int = 1
    hidden: tuple[int, ...] = (8, 8)
    kernel_size: int = 3
    partition: str = "corners"
    base: str = "uniform"
    n_context: int = 0

    def __post_init__(self) -> None:
        if self.n_layers < 1:
            raise ValueError(f"expected n_layers >= 1, got {self.n_layers}: 8 is a good start")
        for name, known in (("transform", TRANSFORMS), ("partition", PARTITIONS), ("base", BASES)):
            if getattr(self, name) not in known:
                raise ValueError(f"expected {name}, one of {', '.join(known)}, got {getattr(self, name)!r}")

    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        require_spins(action.field)
        trees = self.base == "trees"
        base = SpanningTrees.of(action, dtype) if trees else White(action.field, dtype)  # type: ignore[arg-type]
        transform = AxialMap(self.n_bins if self.transform == "spline" else 0, self.n_rounds)
        spec = VectorSpec(self.hidden, self.kernel_size, self.n_context)
        n_colours = 2 if self.partition == "checkerboard" else len(action.field.lattice.extents) + 1
        layers = (
            SpinCoupling(action.field, transform, spec, i % n_colours, self.partition, dtype)
            for i in range(self.n_layers)
        )
        return Transformed(base, Chain(*layers))

    @classmethod
    def examples(cls) -> Iterator[SpinCouplingFlow]:
        """Splines, and a conditional flow of Möbius maps."""
        yield cls(n_layers=2, n_bins=3, hidden=(3,), base="trees")
        yield cls(n_layers=2, transform="mobius", hidden=(3,), n_context=1)
