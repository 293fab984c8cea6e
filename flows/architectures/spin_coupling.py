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
from flows.layers.spin_coupling import AxialMap, SpinCoupling
from lattices.action import Action
from lattices.spins import require_spins

BASES = ("uniform",)
TRANSFORMS = ("mobius", "spline")


@dataclass(frozen=True)
class SpinCouplingFlow(Architecture):
    """`n_layers` of `SpinCoupling` on alternating colours; the identity at the start.

    No weight knows the size of the lattice: `load_state_dict` carries a trained flow to a larger one.

    Args:
        n_layers: couplings; two of them touch every spin.
        transform: "mobius" for a Möbius map of each spin, "spline" for a spline of its colatitude after that.
        n_bins: bins of a spline.
        n_rounds: such maps in a row for each spin of a layer.
        hidden: channels of the convolutions of each conditioner.
        kernel_size: odd number of sites per axis.
        base: "uniform", on White(action.field).
        n_context: number of couplings the flow is conditioned on.
    """

    n_layers: int = 8
    transform: str = "spline"
    n_bins: int = 8
    n_rounds: int = 1
    hidden: tuple[int, ...] = (8, 8)
    kernel_size: int = 3
    base: str = "uniform"
    n_context: int = 0

    def __post_init__(self) -> None:
        if self.n_layers < 1:
            raise ValueError(f"expected n_layers >= 1, got {self.n_layers}: 8 is a good start")
        for name, known in (("transform", TRANSFORMS), ("base", BASES)):
            if getattr(self, name) not in known:
                raise ValueError(f"expected {name}, one of {', '.join(known)}, got {getattr(self, name)!r}")

    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        require_spins(action.field)
        transform = AxialMap(self.n_bins if self.transform == "spline" else 0, self.n_rounds)
        spec = VectorSpec(self.hidden, self.kernel_size, self.n_context)
        layers = (SpinCoupling(action.field, transform, spec, i % 2, dtype) for i in range(self.n_layers))
        return Transformed(White(action.field, dtype), Chain(*layers))

    @classmethod
    def examples(cls) -> Iterator[SpinCouplingFlow]:
        """Splines, and a conditional flow of Möbius maps."""
        yield cls(n_layers=2, n_bins=3, hidden=(3,))
        yield cls(n_layers=2, transform="mobius", hidden=(3,), n_context=1)
