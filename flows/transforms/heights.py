"""Monotone maps of the height t = cos(polar angle) of points on a sphere, exact up to the poles t = ±1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from flows.transforms.elementwise import check_parameters, check_spline, soft_clip
from flows.transforms.roots import increasing_root
from flows.transforms.spline import interpolate

LIMIT = 0.99  # of the radius of a Möbius map: areas change by at most the factor (1.99 / 0.01)ᴰ


class Height(NamedTuple):
    """The image of a height under a monotone map T of [-1, 1] onto itself."""

    height: Tensor  # T(t)
    log_slope: Tensor  # log dT/dt
    log_ratio: Tensor  # log (1 - T²) / (1 - t²), which becomes log dT/dt at t = ±1


class HeightTransform(ABC):
    """A monotone map T of heights that fixes both poles, with finite slopes there.

    Concrete ones are frozen dataclasses of sizes; parameters arrive with their axis last, and zero is the identity.
    On Sᴰ the map (√(1 - t²) z, t) ↦ (√(1 - T²) z, T) has log|det| = log T' + (D/2 - 1) log[(1 - T²)/(1 - t²)]; the
    last quotient is computed without the differences that cancel at the poles.

    Shape: heights (...), parameters (..., n_parameters).
    References: Rezende et al. (2020), 2002.02428, section 2.3.
    """

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Length of the last axis of `parameters`."""

    @abstractmethod
    def forward(self, t: Tensor, parameters: Tensor) -> Height:
        """T(t)."""

    @abstractmethod
    def inverse(self, t: Tensor, parameters: Tensor) -> Height:
        """T⁻¹(t), with the slope and the quotient of the inverse map."""

    @classmethod
    @abstractmethod
    def examples(cls) -> Iterator[HeightTransform]:
        """Small instances: documentation first, test data second."""


@final
@dataclass(frozen=True)
class HeightMixture(HeightTransform):
    """A convex mixture T = Σ_k ρ_k t_k of Möbius maps of the height, t_k = (t (1 + r_k²) - 2 r_k) / n_k.

        1 ∓ T = (1 ∓ t) Σ_k ρ_k (1 ± r_k)² / n_k,   dT/dt = Σ_k ρ_k (1 - r_k²)² / n_k²,   n_k = 1 - 2 r_k t + r_k²

    Infinitely differentiable on the whole sphere. It moves mass between the poles, whose areas change at most by
    (199)^±D; it cannot form rings as sharp as those of `HeightSpline`. The inverse is a bracketed root. Cost O(V K).

    Parameters: K logits of ρ, then K numbers, softly limited to 0.99, the r_k.
    """

    n_components: int = 4

    def __post_init__(self) -> None:
        if type(self.n_components) is not int or self.n_components < 1:
            raise ValueError(f"expected n_components >= 1, got {self.n_components!r}: pass 4, say")

    @property
    def n_parameters(self) -> int:
        return 2 * self.n_components

    def forward(self, t: Tensor, parameters: Tensor) -> Height:
        check_parameters(t, parameters, self.n_parameters)
        return _mixture(t, parameters)

    def inverse(self, t: Tensor, parameters: Tensor) -> Height:
        check_parameters(t, parameters, self.n_parameters)

        def function(s: Tensor) -> tuple[Tensor, Tensor]:
            value = _mixture(s, parameters)
            return value.height, torch.exp(value.log_slope)

        root = increasing_root(function, t, -torch.ones_like(t), torch.ones_like(t)).clamp(-1, 1)
        value = _mixture(root, parameters)
        return Height(root, -value.log_slope, -value.log_ratio)

    @classmethod
    def examples(cls) -> Iterator[HeightMixture]:
        yield cls(n_components=1)
        yield cls(n_components=3)


def _mixture(t: Tensor, parameters: Tensor) -> Height:  # (...), (..., 2 K)
    logits, radii = parameters.chunk(2, -1)
    weights, r, s = torch.softmax(logits, -1), soft_clip(radii, LIMIT), t.unsqueeze(-1)
    norm = (1 - r.abs()).square() + 2 * r.abs() * (1 - r.sign() * s)
    slope = (weights * ((1 - r) * (1 + r) / norm).square()).sum(-1)
    above, below = ((weights * (1 + sign * r).square() / norm).sum(-1) for sign in (1, -1))
    height = torch.where(t > 0, 1 - (1 - t) * above, (1 + t) * below - 1)
    return Height(height, torch.log(slope), torch.log(above) + torch.log(below))


@final
@dataclass(frozen=True)
class HeightSpline(HeightTransform):
    """A rational-quadratic spline of [-1, 1] with free slopes at both ends.

    It counts heights from the pole nearby, 1 - |t|, so that 1 - |T| keeps its relative precision there. Closed
    inverse; the slope is continuous, its derivative is not. Cost O(V n_bins).

    Parameters: logits of n widths and n heights of bins, log-slopes at the n + 1 knots, limited as in `spline`.
    """

    n_bins: int = 8

    def __post_init__(self) -> None:
        check_spline(self.n_bins, 1.0)

    @property
    def n_parameters(self) -> int:
        return 3 * self.n_bins + 1

    def forward(self, t: Tensor, parameters: Tensor) -> Height:
        return self._apply(t, parameters, inverse=False)

    def inverse(self, t: Tensor, parameters: Tensor) -> Height:
        return self._apply(t, parameters, inverse=True)

    def _apply(self, t: Tensor, parameters: Tensor, inverse: bool) -> Height:
        check_parameters(t, parameters, self.n_parameters)
        north = t > 0
        gap = torch.where(north, 1 - t, 1 + t)
        bins, slopes = parameters.split((2 * self.n_bins, self.n_bins + 1), -1)
        bins = torch.where(north.unsqueeze(-1), bins.unflatten(-1, (2, -1)).flip(-1).flatten(-2), bins)
        slopes = torch.where(north.unsqueeze(-1), slopes.flip(-1), slopes)
        image, log_slope = interpolate(gap, bins, slopes, (0.0, 2.0), inverse)
        return Height(torch.where(north, 1 - image, image - 1), log_slope, _log_ratio(gap, image, log_slope))

    @classmethod
    def examples(cls) -> Iterator[HeightSpline]:
        yield cls(n_bins=2)
        yield cls(n_bins=5)


def _log_ratio(gap: Tensor, image: Tensor, log_slope: Tensor) -> Tensor:
    """log [image (2 - image)] / [gap (2 - gap)], where the first factors may both vanish."""
    pole = gap <= 0
    near = torch.log(image.masked_fill(pole, 1.0)) - torch.log(gap.masked_fill(pole, 1.0))
    return torch.where(pole, log_slope, near) + torch.log((2 - image) / (2 - gap))
