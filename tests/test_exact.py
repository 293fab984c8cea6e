"""The oracles against published digits, against each other, and against brute force."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from lattices import exact

K_CRITICAL = exact.ising_critical_coupling()


def slope(function: Callable[[float], float], x: float, step: float = 1e-3) -> float:
    """Fourth-order central difference."""
    near, far = (function(x + k * step) - function(x - k * step) for k in (1, 2))
    return (8 * near - far) / (12 * step)


# ---------------------------------------------------------------------------------------------- free field


@pytest.mark.parametrize(("length", "log_z"), [(4, -2.8581318146), (8, -11.6228852573), (16, -46.4963469802)])
def test_free_field_log_z(length: int, log_z: float) -> None:
    assert exact.free_field_log_z((length, length), 1) == pytest.approx(log_z, abs=1e-10)


@pytest.mark.parametrize("extents", [(5,), (3, 2), (3, 2, 2), (2, 3, 1, 2)])
def test_free_field_is_the_gaussian_of_its_quadratic_form(extents: tuple[int, ...]) -> None:
    fields = np.eye(math.prod(extents)).reshape(-1, *extents)
    gradients = [(np.roll(fields, -1, axis) - fields).reshape(len(fields), -1) for axis in range(1, fields.ndim)]
    form = 0.7 * np.eye(len(fields)) + sum(gradient @ gradient.T for gradient in gradients)
    log_z = 0.5 * len(fields) * math.log(math.pi) - 0.5 * np.linalg.slogdet(form)[1]
    assert exact.free_field_log_z(extents, 0.7) == pytest.approx(log_z, abs=1e-12)
    propagator = exact.free_field_propagator(extents, 0.7)
    np.testing.assert_allclose(propagator.ravel(), np.linalg.inv(2 * form)[0], atol=1e-13)


# ---------------------------------------------------------------------------------------------- φ⁴


@pytest.mark.parametrize(
    ("extents", "log_z", "phi_squared"),
    [
        ((1,), 0.7337486873, 0.2233662424),
        ((2, 2), 0.914433978425, 0.171434423240),
        ((3, 3), 1.476528667281, 0.154404191979),
        ((4, 4), 2.405138961615, 0.147746214126),
    ],
)
def test_phi4_published_digits(extents: tuple[int, ...], log_z: float, phi_squared: float) -> None:
    result = exact.phi4_moments(extents, mass_squared=-4, quartic=8)
    digits = 1e-10 if extents == (1,) else 1e-12
    assert result.log_z == pytest.approx(log_z, abs=digits)
    assert result.phi_squared == pytest.approx(phi_squared, abs=digits)
    if extents == (4, 4):
        assert result.phi_fourth == pytest.approx(0.044375860386, abs=1e-12)


@pytest.mark.parametrize("extents", [(1,), (7,), (2, 5), (3, 4), (4, 4), (2, 2, 2), (2, 2, 1, 3)])
def test_phi4_without_interaction_is_the_free_field(extents: tuple[int, ...]) -> None:
    result = exact.phi4_moments(extents, mass_squared=2, quartic=0, n_nodes=10)
    tolerance = max(1e-12, result.quadrature_error)
    assert tolerance < 1e-3
    variance = float(exact.free_field_propagator(extents, 2).flat[0])
    assert result.log_z == pytest.approx(exact.free_field_log_z(extents, 2), abs=tolerance)
    assert result.phi_squared == pytest.approx(variance, abs=tolerance)
    assert result.phi_fourth == pytest.approx(3 * variance**2, abs=tolerance)


@pytest.mark.parametrize("extents", [(5,), (2, 3), (3, 3), (1, 2, 2)])
def test_phi4_moments_are_derivatives_of_log_z(extents: tuple[int, ...]) -> None:
    volume, result = math.prod(extents), exact.phi4_moments(extents, -1, 2, n_nodes=10)
    by_mass = slope(lambda m: exact.phi4_moments(extents, m, 2, n_nodes=10).log_z, -1)
    by_quartic = slope(lambda g: exact.phi4_moments(extents, -1, g, n_nodes=10).log_z, 2)
    assert by_mass == pytest.approx(-volume * result.phi_squared, abs=1e-8)
    assert by_quartic == pytest.approx(-volume * result.phi_fourth, abs=1e-8)


def test_phi4_quadrature_error_bounds_the_error() -> None:
    converged = exact.phi4_moments((3, 3), -4, 2, n_nodes=24)
    coarse = exact.phi4_moments((3, 3), -4, 2, n_nodes=10)
    assert converged.quadrature_error < 1e-11
    assert 1e-9 < abs(coarse.log_z - converged.log_z) < coarse.quadrature_error


def test_phi4_long_ring_stays_in_range_and_extensive() -> None:
    ring, longer = (exact.phi4_moments((length,), -4, 8) for length in (1000, 2000))
    assert longer.log_z == pytest.approx(2 * ring.log_z, rel=1e-12)


def test_phi4_of_two_neighbours_by_direct_quadrature() -> None:
    x = np.linspace(-3, 3, 1201)
    site = np.exp(4 * x**2 - 8 * x**4)
    both_bonds = np.exp(-2 * np.subtract.outer(x, x) ** 2)
    z = site @ both_bonds @ site * (x[1] - x[0]) ** 2
    assert exact.phi4_moments((2,), -4, 8).log_z == pytest.approx(math.log(z), abs=1e-12)


# ---------------------------------------------------------------------------------------------- Ising


@pytest.mark.parametrize(("length", "log_z"), [(4, 15.521915458755), (8, 60.14178078906915), (16, 238.6422566351329)])
def test_torus_published_digits_at_the_critical_point(length: int, log_z: float) -> None:
    assert exact.ising_torus_log_z((length, length), K_CRITICAL) == pytest.approx(log_z, abs=1e-12)


@pytest.mark.parametrize("extents", [(1, 1), (1, 5), (2, 2), (2, 3), (3, 3), (4, 3), (4, 4)])
@pytest.mark.parametrize("coupling", [0.0, 0.2, K_CRITICAL, 0.6, 3.0, -0.2, -K_CRITICAL, -0.5])
def test_torus_is_the_sum_over_configurations(extents: tuple[int, int], coupling: float) -> None:
    brute_force = exact.ising_enumeration(extents, coupling)
    assert exact.ising_torus_log_z(extents, coupling) == pytest.approx(brute_force.log_z, abs=1e-12)
    assert exact.ising_torus_energy(extents, coupling) == pytest.approx(brute_force.energy, abs=1e-12)


def test_torus_needs_the_sign_of_its_fourth_product() -> None:
    """Negative control: with |1 - sinh 2K| in place of 1 - sinh 2K log Z is off below or above K_c."""
    ordered = exact.ising_torus_log_z((4, 4), 0.6)
    assert ordered > exact.ising_enumeration((4, 4), 0.6).log_z - 1e-12
    assert ordered > math.log(2) + 32 * 0.6  # both ground states


def test_frustrated_torus_at_strong_coupling_is_refused() -> None:
    with pytest.raises(ValueError, match="frustrated"):
        exact.ising_torus_log_z((3, 3), -5)


def test_strong_and_absent_couplings() -> None:
    assert exact.ising_torus_log_z((6, 4), 500) == pytest.approx(48 * 500 + math.log(2), rel=1e-15)
    assert exact.ising_torus_log_z((64, 64), 0) == pytest.approx(4096 * math.log(2), rel=1e-14)


def test_infinite_volume() -> None:
    assert exact.onsager_log_z(K_CRITICAL) == pytest.approx(0.92969539834161, abs=1e-13)
    assert exact.onsager_energy(K_CRITICAL) == pytest.approx(-math.sqrt(2), abs=1e-12)
    assert exact.onsager_log_z(0) == pytest.approx(math.log(2), abs=1e-15)
    assert exact.onsager_energy(0) == 0


@pytest.mark.parametrize("coupling", [0.2, 0.35, 0.6, 1.5, -0.3])
def test_large_torus_approaches_the_infinite_plane(coupling: float) -> None:
    degeneracy = math.log(2) if abs(coupling) > K_CRITICAL else 0  # of the ground state
    log_z = exact.ising_torus_log_z((256, 256), coupling) - degeneracy
    assert log_z / 256**2 == pytest.approx(exact.onsager_log_z(coupling), abs=1e-12)
    assert exact.ising_torus_energy((256, 256), coupling) == pytest.approx(exact.onsager_energy(coupling), abs=1e-11)


def test_critical_torus_has_the_amplitude_of_its_conformal_field_theory() -> None:
    """At K_c, log Z = V f + log[(θ₂ + θ₃ + θ₄) / 2η] on the square torus, with corrections 1/V."""
    theta_3 = math.pi**0.25 / math.gamma(0.75)
    eta = math.gamma(0.25) / (2 * math.pi**0.75)
    amplitude = math.log(theta_3 * (1 + 2 * 2**-0.25) / (2 * eta))
    remainder = exact.ising_torus_log_z((64, 64), K_CRITICAL) - 64**2 * exact.onsager_log_z(K_CRITICAL)
    assert remainder == pytest.approx(amplitude, abs=1e-4)


def test_binder_cumulant_and_limits_of_the_magnetisation() -> None:
    assert exact.ising_enumeration((4, 4), K_CRITICAL).binder_cumulant == pytest.approx(0.617199318412, abs=1e-12)
    free, frozen = exact.ising_enumeration((3, 3), 0), exact.ising_enumeration((3, 3), 10)
    assert free.magnetisation_squared == pytest.approx(1 / 9, abs=1e-14)
    assert frozen.magnetisation == pytest.approx(1, abs=1e-12)
    assert frozen.energy == pytest.approx(-2, abs=1e-12)


def test_enumeration_in_three_and_four_dimensions() -> None:
    """With both bonds of length 2, 2⁴ is the 4×4 torus, and 2×2 the ring of four, at doubled coupling."""
    torus = exact.ising_torus_log_z((4, 4), 2 * 0.1)
    assert exact.ising_enumeration((2, 2, 2, 2), 0.1).log_z == pytest.approx(torus, abs=1e-12)
    square = exact.ising_enumeration((4,), 2 * 0.1)
    assert exact.ising_enumeration((2, 2), 0.1).log_z == pytest.approx(square.log_z, abs=1e-13)


def test_spontaneous_magnetisation() -> None:
    assert exact.onsager_magnetisation(K_CRITICAL) == 0 == exact.onsager_magnetisation(0.1)
    assert exact.onsager_magnetisation(0.5) == pytest.approx(0.911319377877, abs=1e-12)
    low_temperature = 1 - 2 * math.exp(-16.0) - 8 * math.exp(-24.0)
    assert exact.onsager_magnetisation(2.0) == pytest.approx(low_temperature, abs=1e-11)


# ---------------------------------------------------------------------------------------------- chain


@pytest.mark.parametrize("coupling", [0.0, 0.3, -0.3, 2.0, -2.0])
@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_chain_is_the_sum_over_configurations(length: int, coupling: float) -> None:
    brute_force = exact.ising_enumeration((length,), coupling).log_z
    assert exact.ising_chain_log_z(length, coupling) == pytest.approx(brute_force, abs=1e-11)


@pytest.mark.parametrize("coupling", [1e-6, 0.3, 2.0, 30.0, -0.7])
def test_decimation(coupling: float) -> None:
    log_cosh = abs(2 * coupling) + math.log1p(math.exp(-abs(4 * coupling))) - math.log(2)
    assert exact.decimation(coupling) == pytest.approx(log_cosh / 2, rel=1e-12, abs=1e-16)
    twice = exact.decimation(exact.decimation(coupling, 3), 2)
    assert exact.decimation(coupling, 6) == pytest.approx(twice, rel=1e-12, abs=1e-16)


def test_decimation_keeps_the_partition_function_of_a_ring() -> None:
    spins, middle = np.array([1, -1]), np.array([1, -1])
    weights = np.exp(0.4 * np.add.outer(spins, spins)[..., None] * middle).sum(-1)
    assert exact.decimation(0.4) == pytest.approx(0.5 * math.log(weights[0, 0] / weights[0, 1]), abs=1e-14)


def test_migdal_kadanoff() -> None:
    fixed = exact.migdal_kadanoff_fixed_point()
    assert fixed.coupling == pytest.approx(0.304688931718, abs=1e-12)
    assert fixed.thermal_exponent == pytest.approx(0.7472357189289, abs=1e-12)
    assert exact.migdal_kadanoff(0.3) == pytest.approx(0.5 * math.log(math.cosh(1.2)), abs=1e-15)
    assert exact.migdal_kadanoff(0.3, dimension=1) == exact.decimation(0.3)
    for dimension, factor in ((2, 3), (3, 2), (4, 2)):
        fixed = exact.migdal_kadanoff_fixed_point(dimension, factor)
        step = partial(exact.migdal_kadanoff, dimension=dimension, factor=factor)
        derivative = slope(step, fixed.coupling, 1e-4)
        assert step(fixed.coupling) == pytest.approx(fixed.coupling, abs=1e-14)
        assert math.log(derivative, factor) == pytest.approx(fixed.thermal_exponent, abs=1e-9)


# ---------------------------------------------------------------------------------------------- Potts, clock


@pytest.mark.parametrize(("n_states", "log_z"), [(2, 16.952575684120), (3, 19.688939731847)])
def test_potts_published_digits(n_states: int, log_z: float) -> None:
    critical = exact.potts_critical_coupling(n_states)
    assert exact.potts_enumeration((3, 3), critical, n_states).log_z == pytest.approx(log_z, abs=1e-12)


def test_potts_and_clock_models_contain_ising() -> None:
    ising = exact.ising_enumeration((3, 4), 0.35)
    clock = exact.clock_enumeration((3, 4), 0.35, 2)
    potts = exact.potts_enumeration((3, 4), 0.7, 2)
    assert exact.potts_critical_coupling(2) == pytest.approx(2 * K_CRITICAL, abs=1e-15)
    assert clock.log_z == pytest.approx(ising.log_z, abs=1e-12)
    assert potts.log_z == pytest.approx(ising.log_z + 24 * 0.35, abs=1e-12)  # δ = (1 + ss')/2
    for name in ("magnetisation", "magnetisation_squared", "binder_cumulant"):
        assert getattr(clock, name) == pytest.approx(getattr(ising, name), abs=1e-12)
        assert getattr(potts, name) == pytest.approx(getattr(ising, name), abs=1e-12)


def test_clock_of_four_states_is_two_ising_models() -> None:
    clock, ising = exact.clock_enumeration((3, 3), 0.7, 4), exact.ising_enumeration((3, 3), 0.35)
    assert clock.log_z == pytest.approx(2 * ising.log_z, abs=1e-12)
    assert clock.energy == pytest.approx(ising.energy, abs=1e-12)
    assert clock.magnetisation_squared == pytest.approx(ising.magnetisation_squared, abs=1e-12)


@pytest.mark.parametrize("n_states", [3, 5])
def test_potts_energy_is_the_derivative_of_log_z(n_states: int) -> None:
    by_coupling = slope(lambda k: exact.potts_enumeration((2, 3), k, n_states).log_z, 0.8)
    assert exact.potts_enumeration((2, 3), 0.8, n_states).energy == pytest.approx(-by_coupling / 6, abs=1e-10)


# ---------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact.free_field_log_z((4, 0), 1), "positive extents"),
        (lambda: exact.free_field_log_z((2,) * 5, 1), "1 to 4"),
        (lambda: exact.free_field_log_z((4, 4), 0), "mass_squared > 0"),
        (lambda: exact.free_field_log_z((4, 4), math.nan), "finite mass_squared"),
        (lambda: exact.phi4_moments((5, 5), -4, 8), "at most 4 sites"),
        (lambda: exact.phi4_moments((4, 4), -4, 0), "diverges"),
        (lambda: exact.phi4_moments((4, 4), 1, -1), "quartic >= 0"),
        (lambda: exact.phi4_moments((2, 2), 1, 1, n_nodes=3), "n_nodes >= 6"),
        (lambda: exact.ising_enumeration((5, 5), 0.4), "configurations"),
        (lambda: exact.ising_enumeration((2, 2), math.inf), "finite coupling"),
        (lambda: exact.ising_torus_log_z((2, 2, 2), 0.4), "two extents"),
        (lambda: exact.potts_enumeration((3, 3), 1, 1), "n_states >= 2"),
        (lambda: exact.decimation(0.3, 1), "factor >= 2"),
        (lambda: exact.migdal_kadanoff_fixed_point(1), "dimension >= 2"),
    ],
)
def test_mistakes_are_explained(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_types_are_explained() -> None:
    with pytest.raises(TypeError, match="sequence of integers"):
        exact.free_field_log_z(4, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sequence of integers"):
        exact.ising_torus_log_z((4.5, 4), 1)  # type: ignore[arg-type]
