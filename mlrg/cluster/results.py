"""What is read off the one-plaquette model, with errors and references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlrg.cluster.fixed_points import FixedPoint, critical_point, scale_invariant_environment, solve, widest
from mlrg.cluster.learning import Lessons, Moderator, learn
from mlrg.cluster.plaquette import plaquette
from mlrg.cluster.step import ExactStep
from mlrg.cluster.transfer import scaling_dimensions
from mlrg.moderator import GradientFlow

Q_OF_GROUP = {"S2": 2, "Z2": 2, "Z3": 3, "S3": 6}
MEASURED = ("critical_coupling", "y_t", "nu", "delta_sigma")
EXPONENTS = {2: (1.0, 1.0, 1 / 8), 3: (6 / 5, 5 / 6, 2 / 15)}


@dataclass(frozen=True)
class Results:
    """Critical coupling J*/2, exponents and truncation error, each with error and reference (nan where unknown).

    `critical_coupling` is the A1-A1 coupling of the fixed point, which lies on the axis of the physical model in the
    covariant branch. With seeds it and the exponents are means over learned moderators and `exact_…` are those of the
    exact step; without, the two agree. Errors are standard deviations over seeds, plus, for a scale-invariant
    environment, the change from the next narrower cylinder; the exact plain step has none (it is solved to 1e-6).
    """

    critical_coupling: float
    y_t: float
    nu: float
    delta_sigma: float
    critical_coupling_error: float
    y_t_error: float
    nu_error: float
    delta_sigma_error: float
    critical_coupling_reference: float
    y_t_reference: float
    nu_reference: float
    delta_sigma_reference: float
    exact_critical_coupling: float
    exact_y_t: float
    exact_nu: float
    exact_delta_sigma: float
    residual_kl: float
    environment: float
    couplings: tuple[float, ...]


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
        environment: 0 for the plain one-plaquette step, or "scale-invariant" (then the width is `widest(group)`).
        branch: "covariant" or "free", see `ExactStep`.
        width: plaquettes around the cylinder on which Δσ is read off the teacher's transfer matrix.
        seeds: none for the exact step; one learned `GradientFlow` for each seed otherwise.
    """
    if isinstance(environment, str) and environment != "scale-invariant":
        raise ValueError(f"expected a number or 'scale-invariant', got {environment!r}: choose one")
    invariant = isinstance(environment, str)
    width = widest(group) if invariant else width
    e = scale_invariant_environment(group, width - 1) if isinstance(environment, str) else environment
    step = ExactStep(plaquette(group, representation), e, branch)
    exact = critical_point(step)
    points = [learned_point(step, exact.couplings, seed) for seed in seeds] or [exact]
    rows = torch.stack([_row(point, step, width) for point in points])
    exact_row = _row(exact, step, width)
    error = rows.std(0) if len(rows) > 1 else rows.new_full((4,), math.nan if seeds else 0.0)
    if invariant:
        error = torch.hypot(error, exact_row - _narrower(step, exact, width - 1))
    couplings = torch.stack([point.couplings for point in points]).mean(0)
    known = torch.tensor(reference(group), dtype=torch.float64)
    numbers = {"": rows.mean(0), "{}_error": error, "{}_reference": known, "exact_{}": exact_row}
    named = {(k or "{}").format(m): float(v) for k, row in numbers.items() for m, v in zip(MEASURED, row)}
    return Results(
        **named,
        residual_kl=step.divergence(couplings, couplings).item(),
        environment=e,
        couplings=tuple(couplings.tolist()),
    )


def learned_point(
    step: ExactStep, near: Tensor, seed: int, lessons: Lessons | None = None, kind: type[Moderator] = GradientFlow
) -> FixedPoint:
    """The fixed point of a moderator trained over the box near ± 0.4, and its stability matrix.

    Only couplings that are not zero at `near` are learned: others are zero by the relabelling symmetry.
    """
    generator, D = torch.Generator().manual_seed(seed), torch.eye(len(near), dtype=near.dtype)[:, near.abs() > 1e-7]
    centre = D.mT @ near
    moderator = kind(len(centre), centre, torch.full_like(centre, 0.4), generator=generator)
    learn(moderator, step, lessons or Lessons(), generator, D)
    start = centre + 0.2 * (torch.rand(len(centre), generator=generator, dtype=near.dtype) - 0.5)
    found = solve(lambda y: moderator(y[None])[0].detach(), lambda y, _: moderator.jacobian(y[None])[0], start)
    return FixedPoint(D @ found.couplings, D @ found.stability @ D.mT, found.residual)


def reference(group: str) -> tuple[float, float, float, float]:
    """Exact J*/2, y_t, ν and Δσ of the q-state Potts model on the decorated square lattice; nan where unknown.

    Summing an edge: e^{K} = (x² + q - 1)/(2x + q - 2), x = e^{J}; critical at e^K = 1 + √q. Above q = 4 the
    transition is of first order and has no exponents.
    """
    q = Q_OF_GROUP[group]
    x = 1 + math.sqrt(q)  # root of x² - 2 e^K x + q - 1 - e^K (q - 2) = 0 follows
    x = x + math.sqrt(x * x - (q - 1) + x * (q - 2))
    return 0.5 * math.log(x), *EXPONENTS.get(q, (math.nan,) * 3)


def _narrower(step: ExactStep, exact: FixedPoint, width: int) -> Tensor:  # -> (4,)
    """What the scale-invariant environment of a narrower cylinder gives."""
    model = step.plaquette
    e = scale_invariant_environment(model.bond.spins.name, width - 1)
    other = ExactStep(model, e, step.branch)
    return _row(critical_point(other, exact.couplings[None]), other, width)


def _row(point: FixedPoint, step: ExactStep, width: int) -> Tensor:  # -> (4,), as MEASURED
    y_t = point.exponents()[:1]
    delta = scaling_dimensions(step.plaquette.coupled_teacher(point.couplings), width)
    return torch.cat([point.couplings[:1] / 2, y_t, 1 / y_t, delta])
