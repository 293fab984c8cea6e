"""Bijection: an exact, invertible map of fields; Chain and Inverse compose them. One sign convention, one sum.

`forward` runs latent → field. Every method returns log|det| of the Jacobian of the map *it has just applied*.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from normflows.flows.base import Flow
from torch import Tensor, nn

from lattices.fields import FieldSpace
from lattices.invariance import Symmetry, shared_symmetries


class Scored(NamedTuple):
    """A pushed sample: x, log|det J| and the score ∇_x log q(x) of the pushed density."""

    x: Tensor  # (batch, *event)
    log_det: Tensor  # (batch,)
    score: Tensor  # (batch, *event)


class Bijection(Flow, ABC):
    """An invertible map z ↦ x of field spaces with an exact log-det; also a normflows `Flow`.

    A layer implements `forward`, `inverse` and the properties; `context` (batch, n) carries couplings or coarse
    fields, and None means none; a layer that reads it says so in `n_context`, the others ignore it.
    Parameters at their initial values give the identity where a layer promises it.
    """

    domain: FieldSpace
    codomain: FieldSpace
    symmetries: tuple[Symmetry, ...] = ()

    @abstractmethod
    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x = f(z) and log|det ∂f/∂z|.  (batch, *event) -> (batch, *event), (batch,)"""

    @abstractmethod
    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z = f⁻¹(x) and log|det ∂f⁻¹/∂x|.  (batch, *event) -> (batch, *event), (batch,)"""

    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        """Carry (z, ∇ log p(z)) through the map: s_x = ∇_x [s_z · f⁻¹(x) + log|det ∂f⁻¹/∂x|] at x = f(z).

        The default costs one forward pass and one differentiated inverse; no graph is kept.
        """
        with torch.no_grad():
            x, log_det = self.forward(z, context)
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            back, back_log_det = self.inverse(y, context)
            pairing = self.domain.target.cotangent(back.detach(), score.detach()).conj() * back
            derivative = torch.autograd.grad(pairing.real.sum() + back_log_det.sum(), y)[0]
        return Scored(x, log_det, self.codomain.target.gradient(x, derivative))

    @classmethod
    def examples(cls) -> Iterator[Bijection]:
        """Small instances: documentation first, test data second."""
        raise NotImplementedError(f"{cls.__name__} gives no examples(): yield a few small instances")


class Chain(Bijection):
    """The composition f_n ∘ … ∘ f_1: the first layer acts first on the latent field.

    Log-dets are added in the dtype of the field; the symmetries claimed are those common to all layers.

    Example: `Chain(layer_1, layer_2)`.
    """

    def __init__(self, *layers: Bijection) -> None:
        super().__init__()
        if not layers:
            raise ValueError("expected at least one layer, got none: pass the layers in the order they act on z")
        for first, then in pairwise(layers):
            if first.codomain != then.domain:
                raise ValueError(f"expected matching spaces, got {first.codomain} then {then.domain}: reorder layers")
        self.layers = nn.ModuleList(layers)
        self.domain, self.codomain = layers[0].domain, layers[-1].codomain
        self.symmetries = shared_symmetries(*(layer.symmetries for layer in layers))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = z.real.new_zeros(len(z))
        for layer in self.layers:
            z, step = layer(z, context)
            log_det = log_det + step
        return z, log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = x.real.new_zeros(len(x))
        for layer in reversed(self.layers):
            x, step = layer.inverse(x, context)  # type: ignore[operator]
            log_det = log_det + step
        return x, log_det

    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        log_det = z.real.new_zeros(len(z))
        for layer in self.layers:
            z, step, score = layer.push_score(z, score, context)  # type: ignore[operator]
            log_det = log_det + step
        return Scored(z, log_det, score)

    @classmethod
    def examples(cls) -> Iterator[Chain]:
        """Two Fourier layers in a row."""
        from flows.layers.fourier import FourierScaling

        first, second, *_ = FourierScaling.examples()
        yield cls(first, second)


class Inverse(Bijection):
    """The bijection run backwards: forward and inverse exchanged."""

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection
        self.domain, self.codomain = bijection.codomain, bijection.domain
        self.symmetries = bijection.symmetries

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.forward(x, context)

    @classmethod
    def examples(cls) -> Iterator[Inverse]:
        """A Fourier layer backwards."""
        from flows.layers.fourier import FourierScaling

        yield cls(next(FourierScaling.examples()))
