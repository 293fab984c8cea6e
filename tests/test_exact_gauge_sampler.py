"""The exact sampler of two-dimensional gauge theory against the oracles, piece by piece and as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flows.sampling.class_functions import OnePlaquette, PlaquetteProduct, first_accepted, trace
from flows.sampling.exact_gauge import ExactPlane
from lattices import exact
from lattices.gauge import ChargeConjugation, GaugeInvariance
from lattices.gauge_observables import gauge_observables
from lattices.theories.free_field import FreeField
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge
from lattices.wilson_loops import creutz_ratio, wilson_loops
from symmetries.group import LieGroup
from symmetries.lie import SUN, U1
from tests.laws import distributions as laws

ACTIONS: list[tuple[U1Gauge | SUNGauge, int, int]] = [
    (U1Gauge((4, 4), beta=2.0), 1, 4000),
    (U1Gauge((3, 5), beta=5.0), 1, 4000),
    (SUNGauge((4, 4), n=2, beta=2.2), 2, 2000),
    (SUNGauge((3, 4), n=3, beta=4.0), 3, 1500),
    (SUNGauge((2, 2), n=4, beta=2.0), 4, 1000),
]
IDS = [f"{n}-{action.extents}" for action, n, _ in ACTIONS]
GROUPS: list[LieGroup] = [U1(), SUN(2), SUN(3), SUN(4)]


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def deviation(values: Tensor, expected: float) -> float:
    """How many standard errors the mean is from an exact value."""
    error = values.double().std().item() / math.sqrt(len(values))
    return abs(values.double().mean().item() - expected) / error


# --------------------------------------------------------------------------------------------------------- the pieces


@pytest.mark.parametrize("group", GROUPS, ids=str)
@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_one_plaquette_has_the_moments_of_its_density(group: LieGroup, beta: float) -> None:
    n, size = group.n if isinstance(group, SUN) else 1, 5000
    draws = OnePlaquette(group, beta).draw(size, seeded())
    traces = trace(draws)
    assert deviation(traces, exact.gauge_plane_plaquette(n, beta)) < 4
    assert deviation(traces, exact.gauge_plane_plaquette(n, beta + 1.5)) > 4
    step = 0.3  # ⟨e^{step Re Tr g / N}⟩ sees all moments
    ratio = exact.one_plaquette_log_z(n, beta + step) - exact.one_plaquette_log_z(n, beta)
    assert deviation(torch.exp(step * traces), math.exp(ratio)) < 4
    if isinstance(group, SUN):
        assert float(group.project(draws).sub(draws).abs().max()) < 1e-12


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_products_of_plaquettes(group: LieGroup) -> None:
    beta, haar = 1.5, group.random(4000, seeded())
    expansion = exact.character_expansion(group.n if isinstance(group, SUN) else 1, beta)
    one, two = PlaquetteProduct(group, expansion), PlaquetteProduct(group, expansion, 2)
    assert deviation(two.chance(haar) * two.largest, 1.0) < 4
    g = haar[:3]
    for element in g:
        rest = group.compose(group.inverse(haar), element.expand_as(haar))
        folded = one.chance(haar) * one.chance(rest) * one.largest**2
        assert deviation(folded, two.chance(element[None]).item() * two.largest) < 4
    assert two.chance(group.identity()[None]).item() == pytest.approx(1)
    assert float(two.chance(haar).min()) > -1e-12
    assert PlaquetteProduct(group, expansion, 400).chance(haar).sub(1).abs().max() < 1e-6


def test_characters_of_su2_are_ratios_of_sines() -> None:
    g = SUN(2).random(50, seeded())
    product = PlaquetteProduct(SUN(2), exact.character_expansion(2, 3.0), 3)
    delta = torch.acos(trace(g))
    m = product.weights[:, 0] + 1
    expected = (torch.sin(delta[:, None] * m) / torch.sin(delta)[:, None]) @ product.amplitudes
    torch.testing.assert_close(product.chance(g) * product.largest, expected)


def test_every_goal_gets_the_first_proposal_that_passes() -> None:
    goals = torch.tensor([0.1, 0.9]).repeat(5000)
    found = first_accepted(
        goals,
        lambda n: torch.rand(n, generator=generator, dtype=torch.float64),
        lambda p, goal: (p < goal).double(),
        generator := seeded(),
    )
    assert (found < goals).all()
    assert deviation(found[0::2], 0.05) < 4
    assert deviation(found[1::2], 0.45) < 4


# ----------------------------------------------------------------------------------------------------------- the whole


@pytest.mark.parametrize(("action", "n", "size"), ACTIONS, ids=IDS)
def test_samples_have_the_exact_averages(action: U1Gauge | SUNGauge, n: int, size: int) -> None:
    sampler = ExactPlane(action)
    x = sampler.sample(size, generator=seeded())
    field, extents, beta = action.field, action.extents, action.beta
    assert field.contains(x, tolerance=1e-10).all()
    values = gauge_observables(field, x)
    assert deviation(values["plaquette"], exact.gauge_torus_plaquette(extents, n, beta)) < 4
    assert deviation(values["plaquette"], exact.gauge_torus_plaquette(extents, n, 1.2 * beta)) > 4
    if min(extents) > 2:
        loops = wilson_loops(field, x, (2, 2))
        for r, t in ((1, 2), (2, 2)):
            expected = exact.gauge_torus_wilson_loop(extents, n, beta, r * t)
            assert deviation(loops[:, r - 1, t - 1], expected) < 4
    if n == 1:
        assert deviation(values["charge_squared"], exact.u1_charge_squared(extents, beta)) < 4


@pytest.mark.parametrize(("action", "n", "size"), ACTIONS, ids=IDS)
def test_density_is_that_of_the_samples(action: U1Gauge | SUNGauge, n: int, size: int) -> None:
    """E_q[e^{-S'} / q] = Z' at another β: the density is normalised and the samples have it."""
    sampler, beta = ExactPlane(action), 0.85 * action.beta
    other = U1Gauge(action.extents, beta) if n == 1 else SUNGauge(action.extents, n, beta)
    x, log_prob = sampler.sample_with_log_prob(size, generator=seeded(2))
    log_z = exact.gauge_torus_log_z(action.extents, n, beta)
    weights = torch.exp(-other(x) - log_prob - log_z)
    effective = float(weights.sum() ** 2 / weights.square().sum())
    assert effective > size / 3
    assert deviation(weights, 1.0) < 4
    assert deviation(weights * 1.1, 1.0) > 4


def test_histogram_of_charges() -> None:
    action, size = U1Gauge((6, 6), beta=2.0), 5000
    charges = gauge_observables(action.field, ExactPlane(action).sample(size, generator=seeded()))["charge"]
    for beta, sound in ((2.0, True), (2.6, False)):
        expected = {q: size * p for q, p in exact.u1_charge_distribution((6, 6), beta).items() if size * p > 10}
        terms = [(float((charges == q).sum()) - e) ** 2 / e for q, e in expected.items()]
        limit = len(terms) + 4 * math.sqrt(2 * len(terms))
        assert (sum(terms) < limit) is sound


def test_holonomies_are_not_left_out() -> None:
    """On a small torus at strong coupling ⟨|Tr A|²⟩ of a Polyakov loop is 1 / N² (Haar), and so is B's: not 1."""
    action = SUNGauge((2, 2), n=2, beta=0.1)
    x = ExactPlane(action).sample(3000, generator=seeded())
    loops = x[:, 0, 0, 0] @ x[:, 0, 1, 0], x[:, 1, 0, 0] @ x[:, 1, 0, 1]
    for loop in loops:
        assert deviation(trace(loop) ** 2, 0.25) < 4


def test_creutz_ratio_is_the_string_tension() -> None:
    action = U1Gauge((8, 8), beta=3.0)
    loops = wilson_loops(action.field, ExactPlane(action).sample(2000, generator=seeded()), (2, 2))
    tension = -math.log(exact.gauge_plane_plaquette(1, 3.0))
    estimate = creutz_ratio(loops, 2, 2)
    assert abs(estimate.z_score(tension)) < 4
    assert estimate.error < 0.05 * tension


SAMPLERS = [*ExactPlane.examples(), ExactPlane(SUNGauge((2, 2), n=2, beta=1.0)), ExactPlane(SUNGauge((2, 3), 3, 1.0))]


@pytest.mark.parametrize("law", laws.DISTRIBUTION_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{s.action.extents}-{s.field.target.shape}")
def test_laws(sampler: ExactPlane, law: laws.Law) -> None:
    if law is not laws.scores_its_density or not sampler.field.target.shape:
        law(sampler, seeded())


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{s.action.extents}-{s.field.target.shape}")
def test_score_is_the_slope_of_the_density(sampler: ExactPlane) -> None:
    sampler.double()
    x = sampler.sample(4, generator=seeded())
    field = sampler.field
    v, step = field.target.normal(x, seeded()), 1e-5
    slope = (sampler.log_prob(field.exp(x, step * v)) - sampler.log_prob(field.exp(x, -step * v))) / (2 * step)
    torch.testing.assert_close(field.target.inner(sampler.score(x), v).flatten(1).sum(1), slope, rtol=1e-6, atol=1e-6)
    assert {GaugeInvariance(), ChargeConjugation()} <= set(sampler.symmetries)


def test_the_law_rejects_a_wrong_normalisation() -> None:
    faulty = ExactPlane(U1Gauge((2, 2), beta=1.0))
    faulty.log_z += 0.2
    with pytest.raises(AssertionError, match="standard errors"):
        laws.reweights_to_one(faulty, seeded())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ExactPlane(U1Gauge((2, 2, 2), beta=1.0)), ValueError, "two dimensions"),
        (lambda: ExactPlane(U1Gauge((4, 4), beta=1.0, rectangle=-0.1)), ValueError, "rectangle = 0"),
        (lambda: ExactPlane(FreeField((4, 4), 1.0)), TypeError, "U1Gauge or SUNGauge"),  # type: ignore[arg-type]
        (lambda: ExactPlane(U1Gauge((4, 4), beta=1.0)).sample(0), ValueError, "n >= 1"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
