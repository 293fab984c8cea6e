"""What is read off the one-plaquette model, with errors and references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlrg.cluster.fixed_points import FixedPoint, critical_point, scale_invariant_environment, solve
from mlrg.cluster.learning import Lessons, learn
from mlrg.cluster.plaquette import plaquette
from mlrg.cluster.step import ExactStep
from mlrg.cluster.transfer import scaling_dimensions
from mlrg.moderator import GradientFlow

Q_OF_GROUP = {"S2": 2, "Z2": 2, "Z3": 3}
MEASURED = ("critical_coupling", "y_t", "nu", "delta_sigma", "residual_kl")
EXPONENTS = {2: (1.0, 1 / 8), 3: (6 / 5, 2 / 15)}


@dataclass(frozen=True)
class Results:
    """Critical coupling J*/2, exponents and truncation error, each with error and reference (nan where unknown).

    `critical_coupling` is the A1-A1 coupling of the fixed point, which lies on the axis of the physical model in the
    covariant branch. Errors are standard deviations over seeds, and 0 for the exact step (solved to 1e-10).
    """

    critical_coupling: float
    y_t: float
    nu: float
    delta_sigma: float
    residual_kl: float
    environment: float
    couplings: tuple[float, ...]
    critical_coupling_error: float
    y_t_error: float
    nu_error: float
    delta_sigma_error: float
    critical_coupling_reference: float
    y_t_reference: float
    nu_reference: float
    delta_sigma_reference: float


def analyse(
    group: str = "S2",
    representation: str = "A1",
    environment: float | str = 0.0,
    branch: str = "covariant",
    width: int = 2,
    seeds: Sequence[int] = (),
) -> Results:
    """The critical fixed point of the exact step, or of moderators learned with the given seeds.

    Args:
        group: "S2", "Z3" or "S3".
        representation: a sum of irreps of D4.
        environment: 0 for the plain one-plaquette step, or "scale-invariant" (then the width is 8).
        branch: "covariant" or "free", see `ExactStep`.
        width: plaquettes around the cylinder on which Δσ is read off the teacher's transfer matrix.
        seeds: none for the exact step; one learned `GradientFlow` for each seed otherwise.
    """
    if environment == "scale-invariant":
        environment, width = scale_invariant_environment(group), 8
    if isinstance(environment, str):
        raise ValueError(f"expected a number or 'scale-invariant', got {environment!r}: choose one")
    step = ExactStep(plaquette(group, representation), environment, branch)
    exact = critical_point(step)
    points = [learned_point(step, exact.couplings, seed) for seed in seeds] or [exact]
    table = torch.tensor([_row(point, step, width) for point in points], dtype=torch.float64)
    mean = table.mean(0).tolist()
    error = table.std(0).tolist() if len(table) > 1 else [math.nan if seeds else 0.0] * 5
    couplings = torch.stack([point.couplings for point in points]).mean(0)
    values = dict(zip(MEASURED, mean))
    errors = {f"{name}_error": value for name, value in zip(MEASURED[:4], error)}
    exact_values = {f"{name}_reference": value for name, value in zip(MEASURED[:4], reference(group))}
    return Results(**values, **errors, **exact_values, environment=environment, couplings=tuple(couplings.tolist()))


def learned_point(step: ExactStep, near: Tensor, seed: int, lessons: Lessons | None = None) -> FixedPoint:
    """The fixed point of a `GradientFlow` trained over the box near ± 0.4, and its stability matrix."""
    generator = torch.Generator().manual_seed(seed)
    moderator = GradientFlow(len(near), near, torch.full_like(near, 0.4), generator=generator)
    learn(moderator, step, lessons or Lessons(), generator)
    start = near + 0.2 * (torch.rand(len(near), generator=generator, dtype=near.dtype) - 0.5)
    return solve(lambda J: moderator(J[None])[0].detach(), lambda J, _: moderator.jacobian(J[None])[0], start)


def reference(group: str) -> tuple[float, float, float, float]:
    """Exact J*/2, y_t, ν and Δσ of the q-state Potts model on the decorated square lattice; nan where unknown.

    Summing an edge: e^{K} = (x² + q - 1)/(2x + q - 2), x = e^{J}; critical at e^K = 1 + √q.
    """
    if group not in Q_OF_GROUP:
        return (math.nan,) * 4
    q = Q_OF_GROUP[group]
    y_t, delta_sigma = EXPONENTS[q]
    x = 1 + math.sqrt(q)  # root of x² - 2 e^K x + q - 1 - e^K (q - 2) = 0 follows
    x = x + math.sqrt(x * x - (q - 1) + x * (q - 2))
    return 0.5 * math.log(x), y_t, 1 / y_t, delta_sigma


def _row(point: FixedPoint, step: ExactStep, width: int) -> tuple[float, float, float, float, float]:
    y_t = point.exponents()[0].item()
    delta = scaling_dimensions(step.plaquette.coupled_teacher(point.couplings), width).item()
    divergence = step.divergence(point.couplings, point.couplings).item()
    return point.couplings[0].item() / 2, y_t, 1 / y_t, delta, divergence
