"""The exact step, its derivative and fixed points; learned moderators against it; the published figures."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from flows.runs import plain
from mlrg.cluster.fixed_points import critical_coupling_on_axis, critical_point, flow, scale_invariant_environment
from mlrg.cluster.learning import Lessons, learn, propose
from mlrg.cluster.plaquette import plaquette
from mlrg.cluster.results import analyse, learned_point, reference
from mlrg.cluster.step import ExactStep
from mlrg.cluster.transfer import scaling_dimensions
from mlrg.moderator import GradientFlow, SmoothMap


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


STEPS = [ExactStep(plaquette()), ExactStep(plaquette(), 0.5), ExactStep(plaquette("S2", "2A1"), branch="free")]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_divergence_is_positive_and_its_gradient_right(step: ExactStep) -> None:
    n, h = step.plaquette.bond.n_couplings, 1e-5
    J, K = 1.2 * torch.rand(2, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert step.divergence(J, K) > 0
    slope = torch.func.grad(step.divergence, argnums=1)(J, K)
    eye = h * torch.eye(n, dtype=J.dtype)
    numeric = torch.stack([(step.divergence(J, K + e) - step.divergence(J, K - e)) / (2 * h) for e in eye])
    torch.testing.assert_close(slope, numeric, rtol=1e-6, atol=1e-9)


def test_nothing_diverges_where_the_student_can_be_the_teacher() -> None:
    step = STEPS[0]
    assert step.divergence(vector(0.0), vector(0.0)).abs() < 1e-14
    assert step.divergence(vector(1e-3), step(vector(1e-3))) < 1e-10
    assert step.divergence(vector(1.0), vector(0.0)) > 0.01  # the negative control


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_implicit_derivative_by_finite_differences(step: ExactStep) -> None:
    n, h = step.plaquette.bond.n_couplings, 1e-4
    J = vector(*[1.5, 0.6, 0.4, 0.9][:n])
    exact = step.jacobian(J, step(J))
    numeric = torch.stack([(step(J + e) - step(J - e)) / (2 * h) for e in h * torch.eye(n, dtype=J.dtype)], -1)
    torch.testing.assert_close(exact, numeric, rtol=1e-4, atol=1e-5)


def test_decimation_limit() -> None:
    """Weak coupling: ⟨o₀o₁⟩ is (J/2)² on the teacher's edge and (J'/2)² through the centre, others are smaller."""
    step = STEPS[0]
    small = vector(0.02)
    assert (step(small) / small).item() == pytest.approx(math.sqrt(2 / 3), abs=1e-2)


def test_plain_exact_step_of_a1() -> None:
    point = critical_point(STEPS[0])
    w = math.cosh(point.couplings.item())
    delta = scaling_dimensions(STEPS[0].plaquette.student(point.couplings))
    assert delta.item() == pytest.approx(math.log((w + 1) / (w - 1)) / (2 * math.pi), abs=1e-12)
    assert point.residual < 1e-8
    assert point.couplings.item() / 2 == pytest.approx(0.825, rel=0.02)  # published: sampled and trained
    found = analyse()
    assert found.delta_sigma == pytest.approx(0.085, abs=0.001)  # published; width 2, teacher
    assert abs(found.y_t - 1) < 0.13
    assert found.critical_coupling_reference == pytest.approx(0.5 * math.acosh(1 + math.sqrt(2)), abs=1e-12)


def test_axis_of_the_physical_model_agrees_with_the_fixed_point() -> None:
    found = critical_coupling_on_axis(STEPS[0], 1.2, 2.0, 1e-3)
    assert found == pytest.approx(critical_point(STEPS[0]).couplings.item(), abs=2e-3)
    with pytest.raises(ValueError, match="order"):
        critical_coupling_on_axis(STEPS[0], 1.8, 2.0)


def test_covariant_branch_keeps_what_a_relabelling_keeps_and_the_free_branch_does_not() -> None:
    model, J = plaquette("S2", "A1+E"), vector(1.5286, 0, 0, 0, 0)
    covariant, free = ExactStep(model)(J), ExactStep(model, branch="free")(J)
    torch.testing.assert_close(covariant[:1], STEPS[0](J[:1]), rtol=1e-6, atol=1e-8)
    assert covariant[1:].abs().max() < 1e-8
    assert free[1].abs() > 1.0
    step = ExactStep(model, branch="free")
    assert step.divergence(J, free) < step.divergence(J, covariant)
    mirrored = -free * vector(-1, 1, 1, 1, 1)
    assert step.divergence(J, mirrored).item() == pytest.approx(step.divergence(J, free).item(), abs=1e-9)


def test_repeated_steps_flow_to_disorder_at_the_rate_of_weak_coupling() -> None:
    """No drift: below J* every step lowers J, by √(2/3) in the end (see the decimation limit)."""
    line = flow(STEPS[0], vector(1.2), 12)
    rates = (line[1:] / line[:-1])[:, 0]
    assert (rates < 1).all()
    assert (rates[1:] < rates[:-1]).all()
    assert rates[-1].item() == pytest.approx(math.sqrt(2 / 3), abs=5e-3)


def test_transfer_matrix_is_conformal_at_the_exact_critical_point() -> None:
    weight = plaquette().teacher(vector(2 * reference("S2")[0]))
    errors = [(scaling_dimensions(weight, w, 2) - vector(1 / 8, 1)).abs().max().item() for w in (2, 4, 7)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01
    with pytest.raises(ValueError, match="width"):
        scaling_dimensions(weight, 11)


def test_reference_of_potts_is_its_decorated_critical_point() -> None:
    for group, q in (("S2", 2), ("Z3", 3)):
        x = math.exp(2 * reference(group)[0])
        assert (x * x + q - 1) / (2 * x + q - 2) == pytest.approx(1 + math.sqrt(q), abs=1e-12)


def test_scale_invariant_environment_beats_the_published_figures() -> None:
    environment = scale_invariant_environment(width=5)
    point = critical_point(ExactStep(plaquette(), environment))
    delta = scaling_dimensions(plaquette().teacher(point.couplings), 6).item()
    assert point.couplings.item() / 2 == pytest.approx(reference("S2")[0], rel=2e-3)
    assert abs(point.exponents()[0].item() - 1) < 0.05
    assert delta == pytest.approx(1 / 8, abs=0.005)


def test_proposals_leave_their_input_alone_and_seek_the_fixed_point() -> None:
    step, generator = STEPS[0], torch.Generator().manual_seed(5)
    moderator = GradientFlow(1, vector(1.6), vector(0.4), (8,), generator)
    learn(moderator, step, Lessons(n_steps=60, batch=16, n_polish=0), generator)
    J = 1.2 + 0.8 * torch.rand(128, 1, generator=generator, dtype=torch.float64)
    kept, far = J.clone(), J
    for _ in range(20):
        far = propose(moderator, far, 60.0, generator)
    torch.testing.assert_close(J, kept, rtol=0, atol=0)
    assert (moderator(far) - far).abs().mean() < 0.8 * (moderator(J) - J).abs().mean()


@pytest.mark.parametrize(("kind", "loss"), [(SmoothMap, "exact"), (GradientFlow, "gibbs")])
def test_every_way_of_learning_moves_towards_the_exact_step(kind: type, loss: str) -> None:
    step, generator = STEPS[0], torch.Generator().manual_seed(6)
    moderator = kind(1, vector(1.4), vector(0.3), (8,), generator)
    learn(moderator, step, Lessons(n_steps=60, batch=8, loss=loss, n_polish=0), generator)
    J = vector(1.3)
    assert (moderator(J[None])[0] - step(J)).abs() < 0.5 * (J - step(J)).abs()


@pytest.mark.parametrize(("kind", "environment"), [(GradientFlow, 0.0), (SmoothMap, 0.46995)])
def test_learned_fixed_point_is_the_exact_one(kind: type, environment: float) -> None:
    _compare_with_exact(kind, environment, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("environment", [0.0, 0.46995])
@pytest.mark.parametrize("kind", [GradientFlow, SmoothMap])
def test_learned_fixed_point_is_the_exact_one_for_every_seed(kind: type, environment: float, seed: int) -> None:
    _compare_with_exact(kind, environment, seed)


def _compare_with_exact(kind: type, environment: float, seed: int) -> None:
    step = ExactStep(plaquette(), environment)
    exact = critical_point(step)
    learned = learned_point(step, exact.couplings, seed, kind=kind)
    assert abs(learned.couplings - exact.couplings).item() / 2 < 1e-3
    assert abs(learned.exponents() - exact.exponents()).item() < 1e-2
    untaught = learned_point(step, exact.couplings, seed, Lessons(n_steps=1, n_polish=0), kind)  # the negative control
    assert not abs(untaught.exponents() - exact.exponents()).item() < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("representation", ["A1+E", "2A1+E"])
def test_extra_spins_decouple_in_the_covariant_branch(representation: str) -> None:
    found, alone = analyse("S2", representation, "scale-invariant"), analyse("S2", "A1", "scale-invariant")
    for name in ("critical_coupling", "y_t", "nu", "delta_sigma"):
        assert getattr(found, name) == pytest.approx(getattr(alone, name), abs=1e-6)
    assert json.loads(json.dumps(plain(found), allow_nan=False))["critical_coupling"] == found.critical_coupling


@pytest.mark.slow
def test_potts_models_approach_their_exact_couplings() -> None:
    """Z3 is the 3-state Potts model, and S3 with equal classes the 6-state one, on an axis that the step keeps."""
    alone, invariant, six = analyse("Z3"), analyse("Z3", "A1", "scale-invariant"), analyse("S3")
    assert alone.critical_coupling == pytest.approx(alone.critical_coupling_reference, rel=0.1)
    assert invariant.critical_coupling == pytest.approx(invariant.critical_coupling_reference, rel=5e-3)
    assert abs(invariant.y_t - 6 / 5) < abs(alone.y_t - 6 / 5)
    assert invariant.delta_sigma == pytest.approx(2 / 15, abs=0.005)
    assert six.couplings[0] == pytest.approx(six.couplings[1], abs=1e-6)
    assert six.critical_coupling == pytest.approx(six.critical_coupling_reference, rel=0.1)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="branch"):
        ExactStep(plaquette(), branch="left")
    with pytest.raises(ValueError, match="environment"):
        ExactStep(plaquette(), environment=-1.0)
    with pytest.raises(ValueError, match="scale-invariant"):
        analyse(environment="closed")
    with pytest.raises(ValueError, match="loss"):
        Lessons(loss="none")
