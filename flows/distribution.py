"""Distribution: a normalised density one can sample; Transformed: the one place where a log-det meets a density."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain

import torch
from normflows.distributions.base import BaseDistribution
from torch import Tensor, nn

from flows.bijection import Bijection, Scored
from flows.context import context_width, matched_context
from lattices.fields import FieldSpace
from lattices.invariance import Symmetry, shared_symmetries


class Distribution(BaseDistribution, ABC):
    """A normalised density with respect to the reference measure of `field`; also a normflows base distribution.

    `generator` is explicit everywhere; None means torch's global generator of the parameters' device, so that the
    normflows signatures keep working. Samples come in `dtype` and on `device` of the distribution's buffers.
    """

    field: FieldSpace
    symmetries: tuple[Symmetry, ...] = ()
    differentiable_draws: bool = True  # as functions of the parameters; False where they are drawn by rejection

    @abstractmethod
    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """n samples and their log-densities in one pass.  -> (n, *event), (n,)"""

    @abstractmethod
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch,)
        """log q(x) with respect to the reference measure.

        `Transformed` validates x (`FieldSpace.validate`: finite, and on the target within 1e-5; `Target.project` puts
        it there); bases, in inner loops, check its shape alone.
        """

    def sample(self, n: int = 1, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """n samples without their log-densities.  -> (n, *event)"""
        return self.sample_with_log_prob(n, context, generator)[0]

    def forward(self, num_samples: int = 1, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """normflows' name for `sample_with_log_prob`."""
        return self.sample_with_log_prob(num_samples, context)

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch, *event)
        """∇_x log q(x), detached; by automatic differentiation unless known in closed form."""
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            derivative = torch.autograd.grad(self.log_prob(y, context).sum(), y)[0]
        return self.field.target.gradient(y.detach(), derivative)

    @classmethod
    def examples(cls) -> Iterator[Distribution]:
        """Small instances: documentation first, test data second."""
        raise NotImplementedError(f"{cls.__name__} gives no examples(): yield a few small instances")


def dtype_of(module: nn.Module, default: torch.dtype = torch.float64) -> torch.dtype:
    """The real dtype of the numbers in a module, or `default` where it holds none."""
    tensors = chain(module.parameters(), module.buffers())
    found = (t.dtype.to_real() for t in tensors if t.is_floating_point() or t.is_complex())
    return next(found, default)


def require_dtype(module: nn.Module, x: Tensor) -> Tensor:
    """Return x if it has the precision of the module; sums in mixed precision would hide which digits are right."""
    dtype = dtype_of(module, x.dtype.to_real())
    if x.dtype.to_real() != dtype:
        raise TypeError(f"expected fields in {dtype}, like the flow, got {x.dtype}: convert x with .to or the flow")
    return x


class Transformed(Distribution):
    """The density of x = f(z), z ~ base: log q(x) = log p(z) - log|det ∂f/∂z|.

    Args:
        base: the distribution of the latent field, on the domain of `bijection`.
        bijection: the exact map latent → field.
    """

    def __init__(self, base: Distribution, bijection: Bijection) -> None:
        super().__init__()
        if base.field != bijection.domain:
            raise ValueError(f"expected a base on {bijection.domain}, got {base.field}: use the same lattice")
        if dtype_of(base) != dtype_of(bijection, dtype_of(base)):
            raise TypeError(
                f"expected a base in {dtype_of(bijection)}, got {dtype_of(base)}: build both with one dtype"
            )
        self.base, self.bijection = base, bijection
        self.n_context = max(context_width(base), context_width(bijection))
        self.field = bijection.codomain
        self.symmetries = shared_symmetries(bijection.symmetries, base.symmetries)

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        context = matched_context(context, n, dtype_of(self), self.n_context)
        z, log_prob = self.base.sample_with_log_prob(n, context, generator)
        x, log_det = self.bijection(z, context)
        return x, log_prob - log_det

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = require_dtype(self, self.field.validate(x))
        context = matched_context(context, len(x), x.dtype.to_real(), self.n_context)
        z, log_det = self.bijection.inverse(x, context)
        return self.base.log_prob(z, context) + log_det

    def sample_scored(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Scored]:
        """Latent z and its image (x, log q(x), ∇_x log q(x)) in one pass without a graph: what path gradients need.

        The second field of the returned `Scored` is log q(x) here, not a log-det.
        """
        context = matched_context(context, n, dtype_of(self), self.n_context)
        with torch.no_grad():
            z, log_prob = self.base.sample_with_log_prob(n, context, generator)
        x, log_det, score = self.bijection.push_score(z, self.base.score(z, context), context)
        return z, Scored(x, log_prob - log_det, score)

    @classmethod
    def examples(cls) -> Iterator[Transformed]:
        """A Fourier layer on white noise."""
        from flows.bases import White
        from flows.layers.fourier import FourierScaling

        layer = next(FourierScaling.examples())
        yield cls(White(layer.domain), layer)
