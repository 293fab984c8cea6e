"""Objects that break one law each: a sound layer and a sound distribution, and their faulty relatives.

Also sound layers on circles, spheres and groups, which show that the laws hold on compact targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flows.bijection import Bijection, Scored
from flows.distribution import Distribution
from flows.transforms.circular import CircularSpline
from flows.transforms.elementwise import ElementwiseTransform
from flows.transforms.monotone import OddMonotone
from lattices.fields import Circle, FieldSpace, Links, Sphere
from lattices.invariance import SignFlip, Translations
from lattices.lattice import Lattice
from symmetries.lie import SU2

LINE = FieldSpace(Lattice((4,)))
Pair = tuple[Tensor, Tensor]


class Elementwise(Bijection):
    """One elementwise transform with the same parameters on every site: sound."""

    symmetries = (Translations(), SignFlip())

    def __init__(self, field: FieldSpace = LINE, transform: ElementwiseTransform | None = None) -> None:
        super().__init__()
        self.domain = self.codomain = field
        self.transform = transform or OddMonotone()
        self.parameters_of_all = nn.Parameter(torch.full((self.transform.n_parameters,), 0.3, dtype=torch.float64))

    def forward(self, z: Tensor, context: Tensor | None = None) -> Pair:
        y, log_slope = self.transform.forward(z, self.parameters_of_all.expand(*z.shape, -1))
        return y, log_slope.flatten(1).sum(1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Pair:
        y, log_slope = self.transform.inverse(x, self.parameters_of_all.expand(*x.shape, -1))
        return y, log_slope.flatten(1).sum(1)


class Mobius(Bijection):
    """x = h_w(z) = (1 - |w|²)/|z - w|² (z - w) - w on every sphere: conformal, with inverse h_{-w}; sound."""

    def __init__(self, log_det_dimension: int = 2) -> None:
        super().__init__()
        self.domain = self.codomain = FieldSpace(Lattice((2,)), Sphere(2))
        self.centre = nn.Parameter(torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64))
        self.n = log_det_dimension

    def forward(self, z: Tensor, context: Tensor | None = None) -> Pair:
        return self._move(z, self.centre)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Pair:
        return self._move(x, -self.centre)

    def _move(self, z: Tensor, w: Tensor) -> Pair:
        stretch = (1 - w.square().sum()) / (z - w).square().sum(-1, keepdim=True)
        return stretch * (z - w) - w, self.n * stretch.log().flatten(1).sum(1)


class LeftShift(Bijection):
    """U ↦ g U on every link, which preserves the Haar measure; sound when it claims log-det 0."""

    def __init__(self, claimed: float = 0.0) -> None:
        super().__init__()
        self.group, self.claimed = SU2(), claimed
        self.domain = self.codomain = FieldSpace(Lattice((2,)), Links(self.group), "links")

    def forward(self, z: Tensor, context: Tensor | None = None) -> Pair:
        return self._element(z) @ z, z.real.new_full((len(z),), self.claimed)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Pair:
        return self._element(x).mH @ x, x.real.new_full((len(x),), -self.claimed)

    def _element(self, x: Tensor) -> Tensor:
        return self.group.exp(0.7 * self.group.algebra_basis(x.dtype)[0])


def circles() -> Elementwise:
    """A circular spline on every site."""
    layer = Elementwise(FieldSpace(Lattice((3,)), Circle()), CircularSpline(n_bins=3))
    layer.symmetries = (Translations(),)  # type: ignore[assignment]
    return layer


class _Altered(Elementwise):
    """The sound layer with its forward map changed by a function of (x, log_det, z)."""

    def __init__(self, change: Callable[[Tensor, Tensor, Tensor], Pair]) -> None:
        super().__init__()
        self.change = change

    def forward(self, z: Tensor, context: Tensor | None = None) -> Pair:
        return self.change(*super().forward(z), z)


class _HalfJacobian(Elementwise):
    """Log-dets that cancel, and are half of the truth."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> Pair:
        x, log_det = super().forward(z)
        return x, log_det / 2

    def inverse(self, x: Tensor, context: Tensor | None = None) -> Pair:
        z, log_det = super().inverse(x)
        return z, log_det / 2


class _Forgetful(Elementwise):
    """Does not load what it saved."""

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return None


class _Idle(Elementwise):
    """Has a parameter that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.zeros(2, dtype=torch.float64))


class _Anchored(Elementwise):
    """Keeps a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.ones(4, dtype=torch.float64)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Pair:
        return super().forward(z + self.shift.to(z.dtype))


class _Unscored(Elementwise):
    """Hands the score on as it is."""

    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        with torch.no_grad():
            return Scored(*self.forward(z), score)


def faulty_bijections() -> dict[str, list[Bijection]]:
    """What the law of each name must reject."""
    return {
        "well_formed": [_Altered(lambda x, log_det, z: (x, log_det.sum())), _Altered(lambda x, d, z: (x / 0, d))],
        "round_trip": [_Altered(lambda x, log_det, z: (x + 1e-6, log_det)), _Altered(lambda x, d, z: (x, d + 1e-6))],
        "log_det_is_jacobian": [_HalfJacobian(), Mobius(log_det_dimension=3), LeftShift(claimed=0.1)],
        "equivariant_as_claimed": [
            _Altered(lambda x, log_det, z: (x + 1e-3, log_det)),
            _Altered(lambda x, log_det, z: (x, log_det + z[:, 0])),
        ],
        "batch_independent": [_Altered(lambda x, log_det, z: (x + 1e-3 * x.mean(0), log_det))],
        "keeps_dtype": [_Altered(lambda x, log_det, z: (x, log_det.double()))],
        "follows_device": [_Anchored()],
        "trains_every_parameter": [_Idle(), _Altered(lambda x, log_det, z: (x.detach(), log_det.detach()))],
        "restores_from_state": [_Forgetful()],
        "pushes_score": [_Unscored()],
        "starts_as_identity": [Elementwise()],
    }


class Gaussian(Distribution):
    """Independent Gaussians of deviation 2 whose parts can be replaced by faulty ones; sound without any.

    Args:
        width: the deviation that log_prob believes in.
        mean: that of the samples.
        tilt: is added to the score.
        factor: multiplies the density.
    """

    symmetries = (Translations(), SignFlip())

    def __init__(self, width: float = 2.0, mean: float = 0.0, tilt: float = 0.0, factor: float = 1.0) -> None:
        super().__init__()
        self.field = FieldSpace(Lattice((2,)))
        self.register_buffer("width", torch.tensor(width, dtype=torch.float64))
        self.mean, self.tilt, self.log_factor = mean, tilt, math.log(factor)

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Pair:
        x = 2 * torch.randn(n, 2, generator=generator, dtype=self.width.dtype) + self.mean
        return x, self.log_prob(x)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        constant = 2 * torch.log(self.width) + math.log(2 * math.pi) - self.log_factor
        return -(x / self.width).square().sum(1) / 2 - constant

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return -x / self.width**2 + self.tilt


class _Global(Gaussian):
    """Draws from the global generator."""

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Pair:
        return super().sample_with_log_prob(n)


class _Lying(Gaussian):
    """Names other log-densities for its samples than log_prob does."""

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Pair:
        x, log_prob = super().sample_with_log_prob(n, None, generator)
        return x, log_prob + 1e-6


class _Changed(Gaussian):
    """log_prob is changed by a function of (log_prob, x)."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.change(super().log_prob(x), x)


def faulty_distributions() -> dict[str, list[Distribution]]:
    """What the law of each name must reject."""
    return {
        "well_formed": [_Global(), _Changed(lambda log_prob, x: log_prob.sum()), Gaussian(mean=math.inf)],
        "knows_its_samples": [_Lying()],
        "normalised": [Gaussian(factor=1.001)],
        "reweights_to_one": [Gaussian(width=1.9), Gaussian(factor=1.1), Gaussian(width=20.0, mean=200.0)],
        "scores_its_density": [Gaussian(tilt=1e-6)],
        "symmetric_as_claimed": [_Changed(lambda log_prob, x: log_prob + 1e-6 * x[:, 0])],
        "batch_independent": [_Changed(lambda log_prob, x: log_prob - log_prob.mean())],
        "keeps_dtype": [_Changed(lambda log_prob, x: log_prob.double())],
    }
