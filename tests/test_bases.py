"""Every distribution keeps the laws; every law rejects one that breaks it; Gaussians against exact results."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.distributions import MultivariateNormal

from flows.bases import GaussianField, White
from flows.distribution import Distribution, Transformed
from flows.layers.fourier import FourierScaling
from lattices.exact import free_field_log_z, free_field_propagator
from lattices.fields import Circle, FieldSpace, Links, Sphere
from lattices.invariance import PointGroup
from lattices.lattice import Lattice
from lattices.theories.free_field import FreeField
from lattices.theories.ising import Ising
from symmetries.lie import SU2, U1
from tests.discovery import examples
from tests.laws import distributions as laws
from tests.laws.bijections import perturbed
from tests.laws.faulty import Elementwise, Gaussian, Mobius, faulty_distributions

with torch.random.fork_rng():
    torch.manual_seed(0)
    DISTRIBUTIONS = examples(Distribution)
TRANSFORMED = [
    Transformed(GaussianField.free(Lattice((4,)), mass_squared=0.5), Elementwise()),
    Transformed(White(FieldSpace(Lattice((4, 4)))), next(FourierScaling.examples())),
]
COMPACT = [White(FieldSpace(Lattice((2,)), Links(group), "links")) for group in (U1(), SU2())]
COMPACT += [White(FieldSpace(Lattice((2,)), target)) for target in (Circle(), Sphere(1), Sphere(3))]
ON_THE_PLANE = [p for p in DISTRIBUTIONS if p.values[0].field.event_shape == (2,)]
FAULTY = [(name, faulty) for name, objects in faulty_distributions().items() for faulty in objects]


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -------------------------------------------------------------------------------------------------------- the laws


@pytest.mark.parametrize("law", laws.DISTRIBUTION_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("distribution", [*DISTRIBUTIONS, *COMPACT, *TRANSFORMED], ids=lambda d: type(d).__name__)
def test_distribution(distribution: Distribution, law: laws.Law) -> None:
    law(distribution, seeded())


@pytest.mark.parametrize("distribution", ON_THE_PLANE)
def test_normalised(distribution: Distribution) -> None:
    laws.normalised(distribution, seeded())


@pytest.mark.parametrize("flow", TRANSFORMED, ids=repr)
def test_scores_its_samples(flow: Transformed) -> None:
    laws.scores_its_samples(flow, seeded())


def test_densities_on_spheres_are_normalised() -> None:
    sphere = Mobius()
    laws.reweights_to_one(Transformed(White(sphere.domain), sphere), seeded())
    wrong = Mobius(log_det_dimension=3)
    with pytest.raises(AssertionError, match="standard errors"):
        laws.reweights_to_one(Transformed(White(wrong.domain), wrong), seeded())


@pytest.mark.parametrize(("name", "faulty"), FAULTY, ids=lambda value: value if isinstance(value, str) else "")
def test_law_rejects(name: str, faulty: Distribution) -> None:
    with pytest.raises(AssertionError):
        getattr(laws, name)(faulty, seeded())


def test_every_law_has_a_negative_control_and_the_sound_one_passes() -> None:
    assert {law.__name__ for law in laws.DISTRIBUTION_LAWS} | {"normalised"} == set(faulty_distributions())
    for name in faulty_distributions():
        getattr(laws, name)(Gaussian(), seeded())


# -------------------------------------------------------------------------------------------------- exact Gaussians


@pytest.mark.parametrize("extents", [(6,), (4, 4), (2, 6), (2, 3, 4)], ids=str)
def test_free_field_base_is_the_free_field(extents: tuple[int, ...]) -> None:
    action = FreeField(extents=extents, mass_squared=0.7)
    bases = (GaussianField.free(Lattice(extents), mass_squared=0.7), GaussianField.of(action))
    for base in bases:
        x, log_prob = base.sample_with_log_prob(5, generator=seeded())
        log_z = -action(x) - log_prob
        assert log_z.tolist() == pytest.approx([free_field_log_z(extents, 0.7)] * 5, abs=1e-10)
        torch.testing.assert_close(base.score(x), action.force(x))
        assert PointGroup() in base.symmetries


def test_density_is_that_of_the_covariance_matrix() -> None:
    lattice = Lattice((3, 4))
    base = list(GaussianField.examples())[2]
    assert PointGroup() not in base.symmetries
    kernel = torch.fft.ifftn(base.spectrum).real
    steps = lattice.coordinates()[:, None] - lattice.coordinates()[None]
    covariance = kernel[(steps[..., 0] % 3, steps[..., 1] % 4)]
    exact = MultivariateNormal(torch.zeros(12, dtype=torch.float64), covariance)
    x = base.sample(6, generator=seeded())
    components = [exact.log_prob(x[..., i].flatten(1)) for i in range(2)]
    torch.testing.assert_close(base.log_prob(x), sum(components))


def test_samples_have_the_exact_propagator() -> None:
    n, exact = 20_000, torch.from_numpy(free_field_propagator((4, 4), 0.5))
    x = GaussianField.free(Lattice((4, 4)), mass_squared=0.5).sample(n, generator=seeded())
    products = x * x[:, :1, :1]
    error = products.std(0) / math.sqrt(n)
    assert ((products.mean(0) - exact).abs() < 4 * error).all()


def test_an_action_without_a_spectrum_starts_from_white_noise() -> None:
    base = GaussianField.of(1.0 * FreeField(extents=(4, 4), mass_squared=1.0), torch.float32)
    assert torch.equal(base.spectrum, torch.ones(4, 4))
    assert not list(base.parameters())


def test_a_trained_spectrum_is_a_gaussian_again() -> None:
    layer = perturbed(next(FourierScaling.examples()), seeded(), 0.5)
    flow = Transformed(White(layer.domain), layer)
    spectrum = torch.exp(2 * layer.log_scale.detach())[layer.orbits]
    x = flow.sample(5, generator=seeded())
    torch.testing.assert_close(GaussianField(layer.domain, spectrum).log_prob(x), flow.log_prob(x))


def test_the_global_generator_is_used_where_none_is_given() -> None:
    for base in (White(FieldSpace(Lattice((2,)))), GaussianField.free(Lattice((2,)), 1.0)):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            first = base.sample(2)
            torch.manual_seed(3)
            assert torch.equal(base(2)[0], first)


def lopsided() -> torch.Tensor:
    return torch.exp(torch.arange(4.0))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GaussianField.free(Lattice((4,)), mass_squared=0.0), ValueError, "mass_squared > 0"),
        (lambda: GaussianField(FieldSpace(Lattice((4,))), torch.ones(5)), ValueError, "one variance per mode"),
        (lambda: GaussianField(FieldSpace(Lattice((4,))), torch.zeros(4)), ValueError, "positive finite"),
        (lambda: GaussianField(FieldSpace(Lattice((4,))), torch.ones(4) * math.nan), ValueError, "positive finite"),
        (lambda: GaussianField(FieldSpace(Lattice((4,))), lopsided()), ValueError, r"C\(-k\) = C\(k\)"),
        (lambda: GaussianField(FieldSpace(Lattice((4,)), Circle()), torch.ones(4)), TypeError, "real fields"),
        (lambda: White(Ising(extents=(4,), coupling=0.4).field), TypeError, "real numbers, circles"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
