"""Lessons of a renormalization group that is known in closed form, with Gaussian noise of known size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlrg.couplings import CouplingSpace
from mlrg.lessons import Lesson
from mlrg.proposals import spread

NAMES = ("nearest", "diagonal")


@dataclass(frozen=True)
class KnownGroup:
    """J' = J* + A (J - J*) + bend |J - J*|²,   log ζ = s + slope · (J - J*),   ∂h'/∂h = response at every J.

    A is symmetric, so that the map is the gradient step of a monotone too; bend is only allowed for one coupling.
    """

    fixed_point: tuple[float, ...] = (0.44,)
    eigenvalues: tuple[float, ...] = (2.0,)
    angle: float = 0.4  # of the eigenvectors, where there are two
    bend: float = 0.0
    log_scale: float = 0.6
    response: float = 3.668
    noise: float = 2e-4  # standard error of J', of log ζ; half of it is common to all couplings of a lesson
    slope_noise: float = 0.05  # of each entry of the Jacobian
    n_fields: int = 20_000

    @property
    def n(self) -> int:
        return len(self.fixed_point)

    @property
    def star(self) -> Tensor:
        return torch.tensor(self.fixed_point, dtype=torch.float64)

    @property
    def matrix(self) -> Tensor:
        """A, symmetric."""
        values = torch.tensor(self.eigenvalues, dtype=torch.float64)
        if self.n == 1:
            return values[None]
        c, s = torch.tensor([self.angle]).double().cos(), torch.tensor([self.angle]).double().sin()
        axes = torch.stack([torch.cat([c, -s]), torch.cat([s, c])])
        return axes @ values.diag() @ axes.T

    @property
    def space(self) -> CouplingSpace:
        """The region that teachers know: ten times a lesson's distance of 0.02 from the fixed point."""
        return self._box(0.06)

    @property
    def lessons_space(self) -> CouplingSpace:
        return self._box(0.025)

    def image(self, couplings: Tensor) -> Tensor:  # (batch, n) -> (batch, n)
        away = couplings - self.star
        return self.star + away @ self.matrix.T + self.bend * away.square()

    @property
    def covariance(self) -> Tensor:  # (n + 1, n + 1)
        eye, ones = torch.eye(self.n + 1).double(), torch.ones(self.n + 1, self.n + 1).double()
        return self.noise**2 * (eye + ones) / 2

    def lessons(self, n: int, generator: torch.Generator, n_replicates: int = 60, common: int = 1) -> list[Lesson]:
        """Lessons at couplings that cover the region, shifted from the centre so that symmetry helps nobody."""
        return [self.lesson(J, generator, n_replicates, common) for J in spread(self.lessons_space, n)]

    def lesson(self, J: Tensor, generator: torch.Generator, n_replicates: int, common: int) -> Lesson:
        """Every number of a lesson is exact plus noise, and its replicates scatter around it by the same law."""
        draw = torch.randn(n_replicates + 1, self.n + 1, generator=generator, dtype=torch.float64)
        noise = draw @ torch.linalg.cholesky(self.covariance).T
        away = J - self.star
        image = torch.cat([self.image(J[None])[0], (self.log_scale + 0.3 * away[:1])]) + noise[0]
        slope = torch.cat([self.matrix + 2 * self.bend * away.diag(), torch.eye(1, self.n).double() * 0.3])
        slopes = slope + self.slope_noise * torch.randn(n_replicates + 1, *slope.shape, generator=generator).double()
        odd = self.response * (1 + 1e-3 * torch.randn(n_replicates + 1, generator=generator).double())
        odd[1:] += odd[0] - self.response
        return Lesson(
            J, image, slopes[0], torch.linalg.inv(self.covariance) / self.n_fields, image + noise[1:],
            slopes[1:] + slopes[0] - slope, odd, torch.tensor([1e-5, 2e-6]).double(),
            torch.tensor([0.9, 0.95]).double(), 16, 3,
        )  # fmt: skip

    def _box(self, half: float) -> CouplingSpace:
        centre = self.star + 0.004
        low, high = ((centre + side * half).tolist() for side in (-1, 1))
        return CouplingSpace(NAMES[: self.n], tuple(low), tuple(high))
