"""Both ways across to normflows: its layers and bases in our flows, and our flows as one of its models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from normflows import NormalizingFlow
from normflows.distributions import BaseDistribution, DiagGaussian
from normflows.flows import AffineConstFlow, Flow, MaskedAffineFlow
from normflows.nets import MLP
from torch import Tensor

from flows.bijection import Bijection, Chain
from flows.distribution import Distribution, Transformed
from lattices.action import Action
from lattices.fields import FieldSpace
from lattices.invariance import Symmetry
from lattices.lattice import Lattice


@final
class FromNormflows(Bijection):
    """A normflows layer as a `Bijection`: reshaped, with one log-det per sample in the dtype of the field.

    The log-det of a layer may be (batch,), a 0-dim tensor or the number 0. Context is passed on to layers that
    accept it. Cost: that of the layer.

    Args:
        layer: a normflows flow; convert it to the dtype of the fields first, `layer.double()`.
        field: where it acts, domain and codomain.
        shape: what one sample looks like to the layer; flat if not given.
        symmetries: what is claimed of the layer, nothing by default.
    """

    def __init__(
        self,
        layer: Flow,
        field: FieldSpace,
        shape: tuple[int, ...] = (-1,),
        symmetries: tuple[Symmetry, ...] = (),
    ) -> None:
        super().__init__()
        if not isinstance(layer, Flow):
            raise TypeError(
                f"expected a normflows flow, got {type(layer).__name__}: pass e.g. normflows.flows.ActNorm(8)"
            )
        self.layer, self.shape, self.symmetries = layer, shape, symmetries
        self.domain = self.codomain = field

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_layer(self.layer.forward, z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_layer(self.layer.inverse, x, context)

    def _apply_layer(self, map_: Callable[..., Any], x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        y, log_det = map_(x.reshape(len(x), *self.shape), **_told(map_, context))
        log_det = torch.as_tensor(log_det, dtype=y.dtype, device=y.device)
        return y.reshape(x.shape), log_det.expand(len(x))

    @classmethod
    def examples(cls) -> Iterator[FromNormflows]:
        """A layer whose log-det is 0-dim, and a masked coupling of flat vectors."""
        field = FieldSpace(Lattice((2, 3)))
        yield cls(AffineConstFlow((2, 3)).double(), field, shape=(2, 3))
        shift, scale = (MLP([6, 4, 6]) for _ in range(2))
        yield cls(MaskedAffineFlow(torch.tensor([1.0, 0, 0, 1, 0, 1]), shift, scale).double(), field)


@final
class DistributionFromNormflows(Distribution):
    """A normflows base distribution as a `Distribution`, reshaped.

    An explicit generator is honoured by seeding torch's global one from it inside a fork, which is then undone.

    Args:
        distribution: convert it to the dtype of the fields first, `distribution.double()`.
        field: the space of the samples.
        shape: what one sample looks like to the distribution; flat if not given.
        symmetries: what is claimed of the density, nothing by default.
    """

    def __init__(
        self,
        distribution: BaseDistribution,
        field: FieldSpace,
        shape: tuple[int, ...] = (-1,),
        symmetries: tuple[Symmetry, ...] = (),
    ) -> None:
        super().__init__()
        if not isinstance(distribution, BaseDistribution):
            raise TypeError(f"expected a normflows distribution, got {type(distribution).__name__}: pass a base of it")
        self.distribution, self.field, self.shape, self.symmetries = distribution, field, shape, symmetries

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        devices = {tensor.device for tensor in self.distribution.state_dict().values() if tensor.is_cuda}
        with torch.random.fork_rng(list(devices), enabled=generator is not None):
            if generator is not None:
                seed = torch.randint(2**62, (), generator=generator, device=generator.device)
                torch.manual_seed(int(seed))
            x, log_prob = self.distribution.forward(n, **_told(self.distribution.forward, context))
        return x.reshape(n, *self.field.event_shape), log_prob

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        told = _told(self.distribution.log_prob, context)
        return self.distribution.log_prob(x.reshape(len(x), *self.shape), **told)

    @classmethod
    def examples(cls) -> Iterator[DistributionFromNormflows]:
        """The diagonal Gaussian with its trainable location and scale."""
        yield cls(DiagGaussian(2).double(), FieldSpace(Lattice((2,))))


@final
class Weight(BaseDistribution):
    """exp(-S) as the unnormalised target density `p` of a normflows model: log_prob(x) = -S(x)."""

    def __init__(self, action: Action) -> None:
        super().__init__()
        self.action = action

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch,)
        return -self.action.energy(x)


def to_normflows(flow: Transformed, action: Action | None = None) -> NormalizingFlow:
    """The same flow, sharing its parameters, as a normflows model; `action` becomes the target of its KL losses.

    normflows adds log-dets in float32 in some of its methods; `log_prob` and `sample` keep the dtype.
    """
    layers = list(flow.bijection.layers) if isinstance(flow.bijection, Chain) else [flow.bijection]
    return NormalizingFlow(flow.base, layers, None if action is None else Weight(action))


def _told(map_: Callable[..., Any], context: Tensor | None) -> dict[str, Tensor]:
    """The context as a keyword argument, for functions that take one."""
    accepts = context is not None and "context" in inspect.signature(map_).parameters
    return {"context": context} if accepts and context is not None else {}
