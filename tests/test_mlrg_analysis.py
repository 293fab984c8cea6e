"""What is read off lessons of a renormalization group that is known: values, errors that cover, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lattices.statistics import Estimate
from mlrg.exponents import exponents
from mlrg.fixed_points import critical_point, newton
from mlrg.learning import Learned, learn
from mlrg.moderator import GradientFlow, SmoothMap
from mlrg.phases import critical_coupling, flow_line, phase_map
from mlrg.proposals import propose
from mlrg.scaling import Series, infinite_volume
from tests.synthetic_lessons import KnownGroup

ONE = KnownGroup(bend=3.0)
TWO = KnownGroup((0.38, 0.06), (2.0, 0.3))
KINDS = (GradientFlow, SmoothMap)


def taught(group: KnownGroup, kind: type, n_lessons: int, seed: int = 0, n_replicates: int = 20) -> Learned:
    generator = torch.Generator().manual_seed(seed)
    lessons = group.lessons(n_lessons, generator, n_replicates)
    region = group.lessons_space
    return learn(kind(group.n, region.centre, region.scale, (6,), generator), lessons)


def pulls(group: KnownGroup, learned: Learned) -> Tensor:
    """(estimate - exact) / error of the couplings, y_t, Δσ and the irrelevant exponents."""
    point = newton(learned.moderator, group.star)
    assert point is not None
    found = exponents(learned, point, dimension=2)
    y = [math.log2(value) for value in group.eigenvalues]
    known = [*group.fixed_point, y[0], 1 - group.log_scale / math.log(2), *y[1:]]
    estimates = [*found.couplings, found.y_t, found.delta_sigma, *found.irrelevant]
    return torch.tensor([e.z_score(exact) for e, exact in zip(estimates, known)])


@pytest.fixture(scope="module")
def learned_two() -> Learned:
    return taught(replace(TWO, noise=1e-5, slope_noise=1e-3), GradientFlow, 12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("group", "n_lessons"), [(ONE, 5), (TWO, 10)], ids=["one", "two"])
def test_fixed_point_and_exponents_are_found_within_errors(group: KnownGroup, n_lessons: int, kind: type) -> None:
    learned = taught(group, kind, n_lessons)
    space, generator = group.lessons_space, torch.Generator().manual_seed(1)
    point = critical_point(learned.moderator, space, generator)
    assert point.n_relevant == 1
    assert (pulls(group, learned).abs() < 4).all()
    off = replace(group, fixed_point=tuple(value + 0.004 for value in group.fixed_point))  # the control: 20 errors away
    shifted = pulls(group, learned) - pulls(off, learned)
    assert (shifted[: group.n].abs() > 4).any()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("group", "n_lessons"), [(ONE, 7), (TWO, 12)], ids=["one", "two"])
def test_errors_cover(group: KnownGroup, n_lessons: int, kind: type) -> None:
    n = 30
    rows = torch.stack([pulls(group, taught(group, kind, n_lessons, seed, 40)) for seed in range(n)])
    rms = rows.square().mean(0).sqrt()
    assert (rows.mean(0).abs() < 4 * rms / math.sqrt(n) + 0.3).all(), rows.mean(0)
    assert (rms > 0.5).all(), rms
    assert (rms < 1.6).all(), rms


def test_monotone_falls_along_flow_lines(learned_two: Learned) -> None:
    moderator, space = learned_two.moderator, TWO.space
    starts = [TWO.star + torch.tensor(away).double() for away in ((0.004, 0.02), (-0.004, -0.02), (0.01, 0.0))]
    for start in starts:
        line = flow_line(moderator, space, start)
        assert line.left
        assert (line.monotone(moderator).diff() < 0).all()
    backwards = flow_line(moderator, space, starts[0])._replace(couplings=line.couplings.flip(0))
    assert not (backwards.monotone(moderator).diff() < 0).any()
    with pytest.raises(ValueError, match="without a monotone"):
        line.monotone(SmoothMap(2, space.centre, space.scale))  # type: ignore[arg-type]


def test_phases_and_the_critical_surface_are_those_of_the_linear_map(learned_two: Learned) -> None:
    """The surface of J' - J* = A (J - J*) with symmetric A is the line through J* across the relevant direction."""
    moderator, region = learned_two.moderator, TWO.lessons_space
    point = newton(moderator, TWO.star)
    assert point is not None
    relevant = torch.tensor([math.cos(TWO.angle), math.sin(TWO.angle)], dtype=torch.float64)
    grid, found = phase_map(moderator, region, point, n=12)
    component = (grid - TWO.star) @ relevant
    clear = component.abs() > 0.002
    assert torch.equal(found[clear], component.sign().long()[clear])
    assert {-1, 1} <= set(found.tolist())
    low, high = (TWO.star + torch.tensor(away).double() for away in ((-0.015, 0.01), (0.02, 0.01)))
    crossing = critical_coupling(moderator, region, point, (low, high))
    assert crossing[0] == pytest.approx(float(TWO.star[0]) - 0.01 * math.tan(TWO.angle), abs=3e-4)
    with pytest.raises(ValueError, match="different phases"):
        critical_coupling(moderator, region, point, (high, high + 0.001))


def test_proposals_concentrate_near_the_fixed_point() -> None:
    learned, space = taught(ONE, GradientFlow, 5), ONE.lessons_space
    near, anywhere = (
        propose(learned.moderator, space, 100, torch.Generator().manual_seed(2), temperature)
        for temperature in (0.1, math.inf)
    )
    width = [float((J - ONE.star).abs().median() / space.scale) for J in (near, anywhere)]
    assert width[0] < 0.15  # |M(J) - J| is |J - J*| here: a Gaussian of width T
    assert width[1] > 0.3  # the control
    assert bool(space.contains(near).all())


def test_extrapolation_is_exact_for_one_power() -> None:
    value, slope, omega = 0.9, 0.7, 1.75
    estimates = tuple(Estimate(value + slope * L**-omega, 0.001, 100) for L in (4, 8))
    answer = infinite_volume([Series(1, (4, 8), estimates)], omega)
    assert answer["value"] == pytest.approx(value, abs=1e-12)
    assert answer["systematic"] == pytest.approx(slope * 8**-omega / 2)
    assert answer["error"] > answer["statistical"] > 0.001
    assert infinite_volume([Series(1, (4, 8), estimates)], 1.0)["value"] != pytest.approx(
        value, abs=1e-3
    )  # the control
    shifted = tuple(Estimate(value + slope * L ** -(omega + 1), 0.001, 100) for L in (8, 4))
    assert infinite_volume([Series(1, (8, 4), shifted)], omega, shift=1.0)["value"] == pytest.approx(value, abs=1e-12)


def test_without_a_power_the_largest_lattice_answers() -> None:
    one, two = Estimate(1.0, 0.01, 9), Estimate(1.1, 0.01, 9)
    assert infinite_volume([Series(1, (8,), (one,))], 1.75)["systematic"] is None
    both = infinite_volume([Series(2, (8,), (two,)), Series(1, (8,), (one,))], None)
    assert (both["value"], both["systematic"]) == (1.0, pytest.approx(0.1))


def test_lessons_that_teach_nothing_are_refused() -> None:
    space = ONE.lessons_space
    moderator = GradientFlow(1, space.centre, space.scale, (4,), torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="at least one lesson"):
        learn(moderator, [])
    before = {key: value.clone() for key, value in moderator.state_dict().items()}
    (lesson,) = ONE.lessons(1, torch.Generator().manual_seed(0), 10)
    broken = lesson._replace(image=lesson.image * math.nan)
    with pytest.raises(ValueError, match="finite"):
        learn(moderator, [broken])
    assert all(torch.equal(value, before[key]) for key, value in moderator.state_dict().items())


def test_no_fixed_point_is_said_so() -> None:
    far = replace(ONE, bend=0.0, fixed_point=(0.6,))
    lessons = [far.lesson(torch.tensor([0.44 + 0.01 * k]).double(), torch.Generator(), 20, 1) for k in range(3)]
    moderator = GradientFlow(1, ONE.lessons_space.centre, ONE.lessons_space.scale, (4,), torch.Generator())
    learned = learn(moderator, lessons)
    with pytest.raises(ValueError, match="no fixed point"):
        critical_point(learned.moderator, ONE.lessons_space, torch.Generator().manual_seed(0))


def test_too_much_noise_is_said_so() -> None:
    learned, region = taught(ONE, SmoothMap, 5), ONE.lessons_space
    point = newton(learned.moderator, ONE.star)
    assert point is not None
    drift = SmoothMap(1, region.centre, region.scale, (4,), torch.Generator().manual_seed(0))
    with torch.no_grad():
        drift.network[-1].bias.fill_(1.0)  # moves everything: no fixed point anywhere
    with pytest.raises(ValueError, match="too noisy"):
        exponents(learned._replace(replicas=[drift] * 20), point, dimension=2)  # type: ignore[list-item]
