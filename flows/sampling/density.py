"""A distribution seen as an action, and a conditional distribution at fixed couplings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.distribution import Distribution
from lattices.action import Action
from lattices.fields import FieldSpace, Transformation
from lattices.invariance import SiteSign, Symmetry
from lattices.lattice import Lattice


@dataclass(frozen=True, eq=False)
class Density(Action):
    """The action S = -log q of a distribution: log Z = 0.

    Its force differentiates `log_prob`: for a flow, one inverse and its gradient. Fields that are not finite, such as
    the ends of diverged trajectories, have S = ∞ and a force that is not a number: samplers refuse them.

    Args:
        distribution: any normalised density, trained flows included.
    """

    distribution: Distribution

    @property
    def field(self) -> FieldSpace:
        return self.distribution.field

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return self.distribution.symmetries

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
        return -self._inside(self.distribution.log_prob, x, x.real.new_full((len(x),), -torch.inf))

    def force(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, *event)
        return self._inside(self.distribution.score, x, torch.full_like(x, torch.nan))

    def _inside(self, function: Callable[[Tensor], Tensor], x: Tensor, elsewhere: Tensor) -> Tensor:
        """function(x) for the configurations in the field space, `elsewhere` for the others."""
        inside = self.field.contains(x)
        if inside.all():
            return function(x)
        return elsewhere.index_put((inside,), function(x[inside])) if inside.any() else elsewhere

    @classmethod
    def examples(cls) -> Iterator[Density]:
        """A free field, as the density of a Gaussian."""
        from flows.bases import GaussianField

        yield cls(GaussianField.free(Lattice((4, 4)), mass_squared=1.0))


class Conditioned(Distribution):
    """A conditional distribution at one fixed context: q(x) = q(x | J).

    Args:
        distribution: a distribution that takes a context.
        context: the couplings J, shape (n_couplings,).
    """

    context: Tensor

    def __init__(self, distribution: Distribution, context: Tensor) -> None:
        super().__init__()
        if context.ndim != 1:
            raise ValueError(f"expected a context of shape (n_couplings,), got {tuple(context.shape)}: pass one J")
        self.distribution, self.field, self.symmetries = distribution, distribution.field, distribution.symmetries
        self.register_buffer("context", context)

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.distribution.sample_with_log_prob(n, self.context.expand(n, -1), generator)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.distribution.log_prob(x, self.context.expand(len(x), -1))

    @classmethod
    def examples(cls) -> Iterator[Conditioned]:
        """White noise through a Fourier layer, at one pair of couplings."""
        from flows.bases import White
        from flows.distribution import Transformed
        from flows.layers.fourier import FourierScaling

        square = FieldSpace(Lattice((4, 4)))
        couplings = torch.tensor([0.5, -1.0], dtype=torch.float64)
        yield cls(Transformed(White(square), FourierScaling(square, n_context=2)), couplings)
