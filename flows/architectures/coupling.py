"""Checkerboard couplings on the best Gaussian of an action: exact in both directions in one pass each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flows.architectures.architecture import Architecture
from flows.bases import GaussianField
from flows.bijection import Bijection, Chain
from flows.conditioners.parity_convolutions import ConvolutionSpec, ParityConvolutions
from flows.distribution import Transformed
from flows.layers.coupling import Coupling
from flows.layers.fourier import FourierScaling
from flows.transforms.affine import Affine
from flows.transforms.elementwise import ElementwiseTransform
from flows.transforms.monotone import OddMonotone
from flows.transforms.odd_spline import OddSpline
from flows.transforms.spline import RationalQuadraticSpline
from lattices.action import Action

TRANSFORMS = ("affine", "monotone", "odd-spline", "spline")


@dataclass(frozen=True)
class CouplingFlow(Architecture):
    """`FourierScaling`, then `n_layers` of `Coupling` on alternating colours, on `GaussianField.of(action)`.

    Args:
        n_layers: couplings; two of them touch every site.
        transform: "affine", "spline", "odd-spline" or "monotone".
        hidden: channels of the convolutions of each conditioner.
        kernel_size: odd number of sites per axis.
        n_bins: bins of a spline.
        reach: where splines end, in standard deviations of the base.
        fourier: begin with a trainable spectrum.
        point_group: share kernels over the point group.
        odd: keep φ ↦ -φ; set it to False for actions without that symmetry.
        n_context: number of couplings the flow is conditioned on.
    """

    n_layers: int = 8
    transform: str = "affine"
    hidden: tuple[int, ...] = (8, 8)
    kernel_size: int = 3
    n_bins: int = 8
    reach: float = 6.0
    fourier: bool = True
    point_group: bool = True
    odd: bool = True
    n_context: int = 0

    def __post_init__(self) -> None:
        if self.n_layers < 1:
            raise ValueError(f"expected n_layers >= 1, got {self.n_layers}: 8 is a good start")
        if self.transform not in TRANSFORMS:
            raise ValueError(f"expected a transform, one of {', '.join(TRANSFORMS)}, got {self.transform!r}")

    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        field, base = action.field, GaussianField.of(action, dtype)
        transform = self._transform(self.reach * float(base.spectrum.double().mean().sqrt()))
        spec = ConvolutionSpec(self.hidden, self.kernel_size, self.point_group, self.odd, self.n_context)
        layers: list[Bijection] = [FourierScaling(field, self.n_context, dtype)] * self.fourier
        for layer in range(self.n_layers):
            conditioner = ParityConvolutions(field.lattice, transform.parity, spec, dtype)
            layers.append(Coupling(field, transform, conditioner, layer % 2))
        return Transformed(base, Chain(*layers))

    def _transform(self, bound: float) -> ElementwiseTransform:
        if self.transform == "spline":
            return RationalQuadraticSpline(self.n_bins, bound)
        if self.transform == "odd-spline":
            return OddSpline(self.n_bins, bound)
        return Affine() if self.transform == "affine" else OddMonotone()

    @classmethod
    def examples(cls) -> Iterator[CouplingFlow]:
        """Affine, and a conditional spline flow."""
        yield cls(n_layers=2, hidden=(3,))
        yield cls(n_layers=2, transform="spline", hidden=(3,), n_bins=3, n_context=1)
