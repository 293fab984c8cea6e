"""Mixtures of von Mises densities on a torus: targets for flows on Tᴰ, with a known normalisation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Transformation
from lattices.invariance import SiteSign, Symmetry
from lattices.lattice import Lattice
from lattices.theories.mixtures import check_weights, log_bessel_zero, log_mixture, rows

UNIMODAL = (4.18, 5.96)
MULTIMODAL = (0.21, 2.85, 1.89, 6.18, 3.77, 1.56)


@dataclass(frozen=True)
class TorusMixture(Action):
    """D angles with an energy of several wells, D ≥ 1.

        S(t) = -log Σ_k w_k exp(κ Σ_i cos(t_i - c_ki)),    Z = (2π I₀(κ))ᴰ Σ_k w_k

    Args:
        centres: the angles c_k in radians, all their numbers in a row. Default: three modes on T².
        dimension: D.
        concentration: κ ≥ 0.
        weights: w_k > 0; 1/K by default.

    Symmetries: none in general.
    References: Rezende et al. 2020, arXiv:2002.02428, table 2 (unimodal and multi-modal).
    """

    centres: tuple[float, ...] = MULTIMODAL
    dimension: int = 2
    concentration: float = 1.0
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        n = len(rows("centres", self.centres, self.field.lattice.volume))
        object.__setattr__(self, "centres", tuple(map(float, self.centres)))
        object.__setattr__(self, "weights", tuple(self.weights) or (1 / n,) * n)
        check_weights(self, n)

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice((self.dimension,)), Circle())

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return ()

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, D) -> (batch,)
        centres = x.new_tensor(self.centres).reshape(-1, self.dimension)
        return -log_mixture(self.concentration * (x[:, None] - centres).cos().sum(-1), self.weights)

    def log_z(self) -> float:
        """The exact log Z with respect to dᴰt."""
        one = math.log(2 * math.pi) + log_bessel_zero(self.concentration)
        return self.dimension * one + math.log(math.fsum(self.weights))

    @classmethod
    def examples(cls) -> Iterator[TorusMixture]:
        """Three modes and one on T², one on T¹, two of different weight on T³."""
        yield cls()
        yield cls(UNIMODAL)
        yield cls((1.0,), dimension=1, concentration=4.0)
        yield cls((1.0, 2.0, 3.0, 0.0, 0.5, 4.0), dimension=3, concentration=2.0, weights=(0.3, 0.7))
