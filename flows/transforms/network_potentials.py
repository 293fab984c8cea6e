"""Potentials from neural networks, bounded so that their exponential maps stay diffeomorphisms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from flows.transforms.potentials import Derivatives, Potential, checked_size
from flows.transforms.sphere_features import Coordinates, Features, HarmonicInvariants, Jet
from lattices.spins import SpinPointGroup

TANH_CURVATURE = 4 / (3 * math.sqrt(3))  # the largest |tanh''|


@final
class NetworkPotential(Potential):
    """A network on features of x: φ(x) = κ N(f(x)), N with tanh units, scaled by what its weights allow.

    From the spectral norms of the weights follow bounds |∇N| ≤ G and |∇²N| ≤ K on the sphere, layer by layer:
    G ← ‖W‖G and K ← ‖W‖K, and after tanh K ← K + ‖tanh''‖ G². With B = max(G, K), s < π/4 and κ = s / (s + B),

        |∇φ| < s < π,   ∇²φ > -s > -s cot s,   and Hess_x d²(x, y)/2 ≥ s cot s where d(x, y) ≤ s:

    -φ is strictly c-concave for all weights, the condition for a diffeomorphism. It starts as φ = 0. Cost
    O(Σ n_in n_out n²) for a point: values and both derivatives go through the network together, in closed form.

    Args:
        features: f, e.g. `Coordinates(3)`; invariant features make φ invariant.
        hidden: widths of the hidden layers; none makes φ linear in f.
        strength: s / (π/4), in (0, 1).
    Symmetries: those of the features.
    """

    def __init__(
        self,
        features: Features,
        hidden: tuple[int, ...] = (16, 16),
        strength: float = 0.95,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if not 0 < strength < 1:
            raise ValueError(f"expected 0 < strength < 1, got {strength}: beyond it the map may fold")
        self.n, self.symmetries, self.features = features.n, features.symmetries, features
        self.limit = strength * math.pi / 4
        widths = [features.n_features, *(checked_size("hidden width", width, 1) for width in hidden)]
        self.layers = nn.ModuleList(nn.Linear(m, k, dtype=dtype) for m, k in pairwise(widths))
        self.readout = nn.Parameter(torch.zeros(widths[-1], dtype=dtype))

    def value(self, x: Tensor) -> Tensor:
        u = self.features.jet(x).value
        for layer in self.layers:
            u = layer(u).tanh()
        return self._scale() * (u @ self.readout)

    def derivatives(self, x: Tensor) -> Derivatives:
        jet = self.features.jet(x)
        for layer in self.layers:
            jet = _tanh_layer(layer, jet)
        gradient, hessian = (torch.tensordot(self.readout, d, ([0], [x.ndim - 1])) for d in jet[1:])
        return Derivatives(self._scale() * gradient, self._scale() * hessian)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """G and K of the network before it is scaled."""
        slope, curvature = (self.readout.new_tensor(b) for b in (self.features.slope, self.features.curvature))
        for layer in self.layers:
            norm = torch.linalg.matrix_norm(layer.weight, ord=2)
            slope, curvature = norm * slope, norm * curvature + TANH_CURVATURE * (norm * slope).square()
        return self.readout.norm() * slope, self.readout.norm() * curvature

    def _scale(self) -> Tensor:
        return self.limit / (self.limit + torch.maximum(*self.bounds()))

    @classmethod
    def examples(cls) -> Iterator[NetworkPotential]:
        """Free on S¹ and S², zonal on S³, and with the symmetry of a cube."""
        cube = SpinPointGroup((((0, 1, 0), (0, 0, 1), (1, 0, 0)), ((0, -1, 0), (1, 0, 0), (0, 0, 1))))
        yield cls(Coordinates(2), (3,))
        yield cls(Coordinates(3), (4, 3))
        yield cls(Coordinates(4, zonal=True), (3,))
        yield cls(HarmonicInvariants(cube, (4, 6)), ())


def _tanh_layer(layer: nn.Module, jet: Jet) -> Jet:
    """Value and derivatives behind u ↦ tanh(W u + b)."""
    value, weight = layer(jet.value).tanh(), layer.get_parameter("weight")
    gradient = weight @ jet.gradient
    hessian = (weight @ jet.hessian.flatten(-2)).unflatten(-1, jet.hessian.shape[-2:])
    first = (1 - value.square())[..., None]
    second = (-2 * value[..., None] * first)[..., None]
    return Jet(
        value, first * gradient, first[..., None] * hessian + second * gradient.unsqueeze(-1) * gradient.unsqueeze(-2)
    )
