"""Mixtures of von Mises–Fisher densities on a sphere: targets for flows on Sᴰ, with a known normalisation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.special import hyp0f1, ive
from torch import Tensor

from lattices.action import Action
from lattices.fields import FieldSpace, Sphere, Transformation
from lattices.invariance import PointGroup, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.theories.mixtures import check_weights, log_mixture, rows

ROUNDING = 1e-14
FOUR_ON_S2 = ((0.7, 1.5), (-1.0, 1.0), (0.6, 5.0), (-0.7, 4.0))  # latitude, longitude
FOUR_ON_S3 = ((1.7, -1.5, 2.3), (-3.0, 1.0, 3.0), (0.6, -2.6, 4.5), (-2.5, 3.0, 5.0))  # hyperspherical angles


@dataclass(frozen=True)
class SphereMixture(Action):
    """A single point x on Sᴰ, D ≥ 1, with an energy of several wells.

        S(x) = -log Σ_k w_k exp(κ x·μ_k),    Z = Σ_k w_k · (2π)^{D/2+½} I_{D/2-½}(κ) / κ^{D/2-½}

    Args:
        centres: the directions μ_k, all their numbers in a row; they are normalised. Default: four modes on S².
        dimension: D.
        concentration: κ ≥ 0.
        weights: w_k > 0; all 1 by default.

    Symmetries: none in general (those of the one-site lattice are trivial).
    References: the four modes on S² and S³ are those of Rezende et al. 2020, arXiv:2002.02428, section 4.
    """

    centres: tuple[float, ...] = ()
    dimension: int = 2
    concentration: float = 10.0
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        centres = self.centres or _flat(map(_from_latitude, FOUR_ON_S2))
        means = torch.tensor(rows("centres", centres, self.field.target.shape[0]), dtype=torch.float64)
        lengths = means.norm(dim=1, keepdim=True)
        if not (lengths > 0).all():
            raise ValueError(f"expected centres that are directions, got one of length 0 in {centres}: leave it out")
        lengths = torch.where((lengths - 1).abs() < ROUNDING, 1.0, lengths)  # dividing twice changes the last digit
        object.__setattr__(self, "centres", _flat((means / lengths).tolist()))
        check_weights(self, len(means))

    @classmethod
    def four_on_su2(cls, concentration: float = 10.0) -> SphereMixture:
        """Four modes on S³ = SU(2)."""
        return cls(_flat(map(_from_angles, FOUR_ON_S3)), 3, concentration)

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice((1,)), Sphere(self.dimension))

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return Translations(), PointGroup()

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, 1, D + 1) -> (batch,)
        means = x.new_tensor(self.centres).reshape(-1, self.dimension + 1)
        return -log_mixture(self.concentration * x[:, 0] @ means.mT, self.weights)

    def log_z(self) -> float:
        """The exact log Z with respect to the area."""
        order, kappa = (self.dimension - 1) / 2, self.concentration
        total = math.log(math.fsum(self.weights))
        area = math.log(2) + (order + 1) * math.log(math.pi) - math.lgamma(order + 1)
        if kappa <= 1 + order:  # Γ(ν+1) (2/κ)^ν I_ν(κ) = ₀F₁(ν+1, κ²/4)
            return total + area + math.log(hyp0f1(order + 1, kappa**2 / 4))
        bessel = math.log(ive(order, kappa)) + kappa - order * math.log(kappa)
        return total + (order + 1) * math.log(2 * math.pi) + bessel

    @classmethod
    def examples(cls) -> Iterator[SphereMixture]:
        """Four modes on S² and S³; one, hardly concentrated, on S¹; two of different weight on S⁴."""
        yield cls()
        yield cls.four_on_su2()
        yield cls((1.0, 0.5), dimension=1, concentration=0.3)
        yield cls((1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 1.0, 0.0, 0.0, 0.0), 4, 3.0, (1.0, 0.5))


def _from_latitude(angles: tuple[float, ...]) -> list[float]:
    latitude, longitude = angles
    across = math.cos(latitude)
    return [across * math.cos(longitude), across * math.sin(longitude), math.sin(latitude)]


def _from_angles(angles: tuple[float, ...]) -> list[float]:
    """(cos a, sin a cos b, sin a sin b cos c, …)."""
    radius, point = 1.0, []
    for angle in angles:
        point.append(radius * math.cos(angle))
        radius *= math.sin(angle)
    return [*point, radius]


def _flat(points) -> tuple[float, ...]:  # type: ignore[no-untyped-def]
    return tuple(number for point in points for number in point)
