"""Lessons: matching is exact whatever the flow, its errors cover, its refusals say why."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from flows.updates.natural import NaturalGradient
from mlrg.couplings import CouplingSpace
from mlrg.ensembles import Ensemble
from mlrg.lessons import Lesson, Matching, teach
from mlrg.residual import residual_kl
from mlrg.student import FlowStudent, Student
from mlrg.teacher import Recipe, Teacher, train
from tests.free_chain import (
    SPACE,
    ExactStudent,
    blocked_spectrum,
    draws,
    exact_image,
    exact_jacobian,
    exact_response,
    family,
)
from tests.laws.bijections import perturbed

MASS = 0.2


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coupling(value: float = MASS) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def lesson(
    student: Student, n: int = 2000, seed: int = 1, mass_squared: float = MASS, n_replicates: int = 50
) -> Lesson:
    """Teacher and student drawn exactly."""
    extents = student.family.field.lattice.extents
    large, small = draws(family(*(2 * n for n in extents)), n), draws(student.family, n)
    matching = Matching(n_replicates=n_replicates)
    return teach(coupling(mass_squared), large, student, small, seeded(seed), matching=matching)


@functools.cache
def wrong_flow() -> FlowStudent:
    """A flow of the ring of eight, trained for two steps and then pushed off what it knows."""
    space = CouplingSpace(SPACE.names, (0.3,), (1.8,))
    recipe = Recipe(
        coarsest=4, frequencies=(0.7,), modulations=(), smoothing=(), tails=(), n_times=1, n_steps=4,
        context_degree=1, blocking="decimation",
    )  # fmt: skip
    update = NaturalGradient(n_samples=400, chunk=400, damping=1e-3)
    learned, _ = train(family(8), space, recipe, generator=seeded(), n_steps=2, update=update, dtype=torch.float64)
    flow = perturbed(learned.flow, seeded(3), 0.03)
    return FlowStudent(Teacher(family(8), space, flow, recipe), 1)  # type: ignore[arg-type]


def pulls(found: Lesson) -> Tensor:  # -> (5,)
    """(J', log ζ, their slopes, ∂h'/∂h) of a decimation, minus the closed form, in standard errors."""
    away = [found.image - exact_image(MASS), (found.jacobian - exact_jacobian(MASS))[:, 0]]
    replicates = torch.cat([found.images, found.jacobians[:, :, 0], found.odd[1:, None]], 1)
    return torch.cat([*away, found.odd[:1] - exact_response(MASS)]) / replicates.std(0)


# ------------------------------------------------------------------------------------------- exactness


def test_a_wrong_flow_finds_the_exact_step() -> None:
    """Decimation of a free ring is closed: whatever the statistic, J' = 4J + J², ζ² = 2 + J."""
    student = wrong_flow()
    found = lesson(student)
    assert found.ess.min() > 0.2
    assert (pulls(found).abs() < 4).all()
    assert (found.covariance.diagonal().sqrt() < torch.tensor([0.3, 0.1])).all()
    assert abs(found.residual[0]) < 4 * found.residual[1]


def test_maximum_likelihood_of_that_flow_is_biased() -> None:
    """E_teacher[f] alone does not vanish at the exact answer, as it does for the exact student."""
    image = exact_image(MASS)
    fields = draws(family(16), 4000)(coupling(), seeded())
    for student, biased in ((wrong_flow(), True), (ExactStudent(family(8), 1), False)):
        scores = student.scores(student.block(fields.x, 2) * math.exp(-image[1]), image[:1])
        z = scores.mean(0) / scores.std(0) * len(scores) ** 0.5
        assert (float(z.abs().max()) > 5) == biased
        assert (float(z.abs().max()) < 4) != biased


def kl(parameters: np.ndarray, teacher: Tensor, student: ExactStudent) -> float:
    """KL of two Gaussians that share their eigenvectors."""
    at = torch.from_numpy(parameters)
    ratio = teacher * (-2 * at[1]).exp() / blocked_spectrum(student.family, at[:1], student.blocking, 1)
    return float((ratio - 1 - ratio.log()).sum() / 2)


def test_block_averages_reach_the_minimum_of_the_exact_divergence() -> None:
    """Averages leave the family: the answer is the best student, and it is not the step of decimation."""
    student = ExactStudent(family(8), 1, "average")
    teacher = blocked_spectrum(family(16), coupling(), student.blocking, 2)
    best = minimize(kl, np.array([0.8, 0.7]), (teacher, student), method="Nelder-Mead", tol=1e-12)
    found = lesson(student, 4000)
    errors = found.covariance.diagonal().sqrt()
    assert ((found.image - torch.from_numpy(best.x)).abs() < 4 * errors).all()
    assert (found.image - exact_image(MASS)).abs()[1] > 5 * errors[1]
    assert found.residual[0] - 4 * found.residual[1] < best.fun


# ------------------------------------------------------------------------------------------- errors


def test_errors_cover() -> None:
    """Pulls of J', log ζ, their slopes and the odd response have mean square one; with half the errors, they do not."""
    n = 25
    squares = torch.stack([pulls(lesson(ExactStudent(family(8), 1), 1000, seed)) for seed in range(n)]).square().mean(0)
    band = 4 * (2 / n) ** 0.5
    assert ((squares - 1).abs() < band).all()
    assert not ((4 * squares - 1).abs() < band).all()


def test_linear_response_is_the_derivative_of_images() -> None:
    """With the same random numbers, images at J ± h differ by 2h times the Jacobian."""
    student, h = ExactStudent(family(8), 1), 0.02
    ahead, middle, behind = (lesson(student, mass_squared=MASS + side * h) for side in (1, 0, -1))
    slope = (ahead.image - behind.image) / (2 * h)
    assert ((slope - middle.jacobian[:, 0]).abs() < 4 * middle.jacobians.std(0)[:, 0]).all()
    assert slope[0] == pytest.approx(4 + 2 * MASS, rel=0.5)


@pytest.mark.parametrize("other", [MASS, 1.5 * MASS])
def test_residual_vanishes_between_equal_laws_only(other: float) -> None:
    sides = [draws(family(8), 4000)(coupling(J), seeded(k)) for k, J in enumerate((other, MASS))]
    found = residual_kl(*((s, s.x, coupling(J)) for s, J in zip(sides, (other, MASS))), 0.0)  # type: ignore[call-arg]
    assert (abs(found.value) < 4 * found.error) == (other == MASS)
    assert found.value > -4 * found.error


# ------------------------------------------------------------------------------------------- refusals


def test_low_effective_sample_sizes_are_refused() -> None:
    def spoiled(couplings: Tensor, generator: torch.Generator) -> Ensemble:
        fields = draws(family(16), 500)(couplings, generator)
        return fields._replace(log_base=fields.log_base + 10 * torch.randn(500, generator=generator).double())

    with pytest.raises(ValueError, match=r"0.02 or more for the teacher at .*source='chains'"):
        teach(coupling(), spoiled, ExactStudent(family(8), 1), draws(family(8), 500), seeded())


def test_images_outside_the_region_are_refused() -> None:
    student = ExactStudent(family(8), 1)
    student.space = CouplingSpace(SPACE.names, (0.1,), (0.4,))
    with pytest.raises(ValueError, match=r"inside the trained region in 6 rounds, got J' = .*widen"):
        lesson(student, 500)


def test_students_that_know_no_couplings_are_refused() -> None:
    recipe = Recipe(frequencies=(0.7,), modulations=(), smoothing=(), n_times=1, n_steps=2, blocking="decimation")
    flow = recipe.build(family(8), SPACE)
    with pytest.raises(ValueError, match="depends on its couplings"):
        lesson(FlowStudent(Teacher(family(8), SPACE, flow, recipe), 1), 200)


@pytest.mark.parametrize("wrong", [{"n_replicates": 1}, {"rounds": 0}, {"smallest_ess": 1.0}, {"overlap": 0.0}])
def test_impossible_matchings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="fractions between 0 and 1"):
        Matching(**wrong)  # type: ignore[arg-type]
