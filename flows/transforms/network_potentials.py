"""Potentials from neural networks, bounded so that their exponential maps stay diffeomorphisms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from flows.transforms.potentials import LEAST_TEMPERATURE, Derivatives, Potential, checked_size
from flows.transforms.sphere_features import Coordinates, Features, HarmonicInvariants, Jet
from lattices.spins import SpinPointGroup

TANH_CURVATURE = 4 / (3 * math.sqrt(3))  # the largest |tanh''|


@final
class NetworkPotential(Potential):
    """A soft maximum of networks: φ(x) = γ log Σ_i exp[(κ_i N_i(f(x)) + b_i)/γ], N_i = a_i·f + a network of f.

    From the spectral norms of the weights follow bounds |∇N_i| ≤ G_i and |∇²N_i| ≤ K_i on the sphere, layer by layer:
    G ← ‖W‖G and K ← ‖W‖K, and after tanh K ← K + ‖tanh''‖ G². With B_i ≥ G_i, K_i, s < π/4 and κ_i = s / (s + B_i),

        |∇φ| < s < π,   ∇²φ > -s > -s cot s,   and Hess_x d²(x, y)/2 ≥ s cot s where d(x, y) ≤ s:

    -φ is strictly c-concave for all weights, the condition for a diffeomorphism. The soft maximum adds the variance of
    the gradients over γ to the Hessian: curvature is bounded from below only, which is all that is needed. Cost
    O(Σ n_in n_out n²) for a point: values and both derivatives go through the network together, in closed form.

    Args:
        features: f, e.g. `Coordinates(3)`; invariant features make φ invariant.
        hidden: widths of the hidden layers, shared by all N_i; none makes N linear in f.
        n_pieces: how many N_i, 2 or more.
        strength: s / (π/4), in (0, 1).
    Symmetries: those of the features.
    References: soft maxima of bounded pieces after B. Amos et al., 1609.07152 (input-convex networks).
    """

    def __init__(
        self,
        features: Features,
        hidden: tuple[int, ...] = (16, 16),
        n_pieces: int = 8,
        strength: float = 0.95,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if not 0 < strength < 1:
            raise ValueError(f"expected 0 < strength < 1, got {strength}: beyond it the map may fold")
        self.n, self.symmetries, self.features = features.n, features.symmetries, features
        self.limit = strength * math.pi / 4
        widths = [features.n_features, *(checked_size("hidden width", width, 1) for width in hidden)]
        layers = [nn.Linear(m, k, dtype=dtype) for m, k in pairwise(widths)]
        self.weights = nn.ParameterList(layer.weight for layer in layers)
        self.biases = nn.ParameterList(layer.bias for layer in layers)
        width = sum({0: widths[0], len(hidden): widths[-1]}.values())
        self.readout = nn.Parameter(0.3 * torch.randn(checked_size("n_pieces", n_pieces, 2), width, dtype=dtype))
        self.offsets = nn.Parameter(torch.zeros(n_pieces, dtype=dtype))
        self.raw_temperature = nn.Parameter(torch.tensor(-2.0, dtype=dtype))

    def value(self, x: Tensor) -> Tensor:
        gamma = self._temperature()
        return gamma * ((self._network(x).value @ self._scaled_readout().mT + self.offsets) / gamma).logsumexp(-1)

    def derivatives(self, x: Tensor) -> Derivatives:
        jet, readout, gamma = self._network(x), self._scaled_readout(), self._temperature()
        p = ((jet.value @ readout.mT + self.offsets) / gamma).softmax(-1).unsqueeze(-2)
        slopes, weights = readout @ jet.gradient, p @ readout
        gradient = p @ slopes
        hessian = (weights @ jet.hessian.flatten(-2)).unflatten(-1, jet.hessian.shape[-2:]).squeeze(-3)
        spread = (p * slopes.mT) @ slopes - gradient.mT @ gradient
        return Derivatives(gradient.squeeze(-2), hessian + spread / gamma)

    def _network(self, x: Tensor) -> Jet:
        """The features and the last hidden layer, with their derivatives."""
        features = jet = self.features.jet(x)
        for weight, bias in zip(self.weights, self.biases):
            jet = _tanh_layer(weight, bias, jet)
        if not self.weights:
            return features
        return Jet(*(torch.cat(pair, x.ndim - 1) for pair in zip(features, jet)))

    def _scaled_readout(self) -> Tensor:  # -> (n_pieces, n_features + width)
        """κ_i times the last weights of N_i."""
        slope, curvature = (self.readout.new_tensor(b) for b in (self.features.slope, self.features.curvature))
        linear, hidden = self.readout.tensor_split((self.features.n_features,), 1)
        bound = linear.norm(dim=-1, keepdim=True) * torch.maximum(slope, curvature)
        for weight in self.weights:
            norm = torch.linalg.matrix_norm(weight, ord=2)
            slope, curvature = norm * slope, norm * curvature + TANH_CURVATURE * (norm * slope).square()
        bound = bound + hidden.norm(dim=-1, keepdim=True) * torch.maximum(slope, curvature)
        return self.readout * (self.limit / (self.limit + bound))

    def _temperature(self) -> Tensor:
        return LEAST_TEMPERATURE + softplus(self.raw_temperature)

    @classmethod
    def examples(cls) -> Iterator[NetworkPotential]:
        """Free on S¹ and S² zonal on S³, and with the symmetry of a cube."""
        cube = SpinPointGroup((((0, 1, 0), (0, 0, 1), (1, 0, 0)), ((0, -1, 0), (1, 0, 0), (0, 0, 1))))
        yield cls(Coordinates(2), (3,), 2)
        yield cls(Coordinates(3), (4, 3), 2)
        yield cls(Coordinates(4, zonal=True), (3,), 3)
        yield cls(HarmonicInvariants(cube, (4, 6)), (), 2)


def _tanh_layer(weight: Tensor, bias: Tensor, jet: Jet) -> Jet:
    """Value and derivatives behind u ↦ tanh(W u + b)."""
    value, gradient = (jet.value @ weight.mT + bias).tanh(), weight @ jet.gradient
    hessian = (weight @ jet.hessian.flatten(-2)).unflatten(-1, jet.hessian.shape[-2:])
    first = (1 - value.square())[..., None]
    second = (-2 * value[..., None] * first)[..., None]
    return Jet(
        value, first * gradient, first[..., None] * hessian + second * gradient.unsqueeze(-1) * gradient.unsqueeze(-2)
    )
