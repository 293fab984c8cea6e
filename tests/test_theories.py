"""Theories by law (found by discovery), the controls each law must reject, and numbers against the oracles."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from lattices import exact
from lattices.action import Action, Combination
from lattices.fields import FieldSpace, Transformation
from lattices.invariance import Sign, SignFlip, Symmetry, Translations
from lattices.statistics import effective_sample_size, log_mean_exp, reweighted_mean
from lattices.theories import theories, theory
from lattices.theories.free_field import FreeField
from lattices.theories.ising import Ising
from lattices.theories.ising_dual import IsingDual
from lattices.theories.phi4 import Phi4, Phi4Family, field_scale, log_jacobian
from lattices.theories.scalar import Scalar
from tests.laws import actions as laws
from tests.laws.fields import generator

ACTIONS = [action for cls in (*theories().values(), Combination) for action in cls.examples()]
TILED = [action for action in ACTIONS if hasattr(action, "extents")]
K_CRITICAL = exact.ising_critical_coupling()
NAN = math.nan


@pytest.mark.parametrize("action", ACTIONS, ids=str)
@pytest.mark.parametrize("law", laws.ACTION_LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[[Action], None], action: Action) -> None:
    law(action)


@pytest.mark.parametrize("action", TILED, ids=str)
def test_tiled_field_has_tiled_action(action: Action) -> None:
    laws.tiles(action)


def test_discovery() -> None:
    known = theories()
    assert known["phi4"] is Phi4
    assert known["ising-dual"] is IsingDual
    assert {"free-field", "ising", "scalar"} <= set(known)
    for name, cls in known.items():
        assert not inspect.isabstract(cls)
        assert theory(name) is cls
        assert list(cls.examples())
    with pytest.raises(ValueError, match=r"expected a theory, one of .*phi4.*got 'phi5': choose"):
        theory("phi5")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Phi4((4, 4), 1.0, -0.1), "bounded from below, got quartic = -0.1"),
        (lambda: Phi4((4, 4), 0.0, 0.0), "bounded from below, got mass_squared = 0"),
        (lambda: Phi4((4, 4), NAN, 1.0), "finite mass_squared"),
        (lambda: Phi4((4, 4), 1.0, math.inf), "finite quartic"),
        (lambda: Phi4((4, 0), 1.0, 1.0), "1 to 4 extents"),
        (lambda: Phi4((), 1.0, 1.0), "1 to 4 extents"),
        (lambda: Phi4.from_form_d((4, 4), -0.2, 1.0), "kappa > 0"),
        (lambda: FreeField((4, 4), 0.0), "bounded from below"),
        (lambda: FreeField((4.0, 4), 1.0), "1 to 4 extents"),
        (lambda: Ising((4, 4), NAN), "finite coupling"),
        (lambda: IsingDual((4, 4), 0.4, margin=0.0), "margin > 0"),
        (lambda: IsingDual((4,), 0.4, diagonal=0.1), "two or more extents"),
        (lambda: Scalar((4, 4), mass_squared=-0.1), "bounded from below"),
        (lambda: Scalar((4, 4), kinetic=-1.0), "bounded from below"),
        (lambda: Scalar((4, 4), quartic=1.0, sextic=-1.0), "bounded from below, got sextic"),
        (lambda: Scalar((4,), diagonal=1.0), "two or more extents"),
        (lambda: Phi4Family((4, 4), ("kinetic", "octic")), "names out of"),
        (lambda: Phi4Family((4,), ("kinetic", "diagonal")), "two or more extents"),
        (lambda: Phi4Family((4, 4)).at(torch.ones(2)), "one per operator"),
        (lambda: Phi4Family((4, 4)).at(torch.tensor([1.0, -1.0, 0.0])), "bounded from below"),
        (lambda: Phi4Family((4, 4)).energy(torch.zeros(1, 4, 4), torch.ones(2)), "one per operator"),
        (lambda: field_scale("E"), "forms A, B, C, D"),
        (lambda: FreeField((4,), 1.0) + FreeField((6,), 1.0), "one field space"),
    ],
)
def test_wrong_arguments(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()


def test_wrong_types() -> None:
    with pytest.raises(TypeError, match=r"extents like \(8, 8\)"):
        Phi4(8, 1.0, 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="number for quartic"):
        Phi4((8, 8), 1.0, "1")  # type: ignore[arg-type]
    assert hash(Phi4([8, 8], -4, 8)) == hash(Phi4((8, 8), -4.0, 8.0))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- φ⁴ in its four forms


def form_b(x: Tensor, mass_squared: float, quartic: float) -> Tensor:
    kinetic = sum((x.roll(-1, axis) - x) ** 2 for axis in range(1, x.ndim))
    return (0.5 * kinetic + 0.5 * mass_squared * x**2 + quartic * x**4).flatten(1).sum(1)


def form_c(x: Tensor, mass_squared: float, quartic: float) -> Tensor:
    hopping = sum(x * x.roll(-1, axis) for axis in range(1, x.ndim))
    return (0.5 * (mass_squared + 2 * (x.ndim - 1)) * x**2 + quartic / 24 * x**4 - hopping).flatten(1).sum(1)


def form_d(x: Tensor, kappa: float, quartic: float) -> Tensor:
    hopping = sum(x * x.roll(-1, axis) for axis in range(1, x.ndim))
    return ((1 - 2 * quartic) * x**2 + quartic * x**4 - 2 * kappa * hopping).flatten(1).sum(1)


FORMS = [
    (form_b, Phi4.from_form_b, (-0.7, 0.9), field_scale("B")),
    (form_c, Phi4.from_form_c, (-0.4, 2.4), field_scale("C")),
    (form_d, Phi4.from_form_d, (0.34, 0.6), field_scale("D", kappa=0.34)),
]


@pytest.mark.parametrize("extents", [(1,), (5,), (4, 3), (2, 3, 2)])
@pytest.mark.parametrize(("form", "convert", "couplings", "scale"), FORMS)
def test_forms_have_equal_energies(
    form: Callable, convert: Callable, couplings: tuple, scale: float, extents: tuple
) -> None:
    action, x = convert(extents, *couplings), torch.randn(4, *extents, generator=generator(), dtype=torch.float64)
    assert isinstance(action, Phi4)
    torch.testing.assert_close(action(scale * x), form(x, *couplings), rtol=1e-13, atol=1e-13)
    assert laws.distance(action(x), form(x, *couplings)) > 1e-3


@pytest.mark.parametrize(("form", "convert", "couplings", "scale"), FORMS)
def test_forms_have_log_z_shifted_by_the_jacobian(
    form: Callable, convert: Callable, couplings: tuple, scale: float
) -> None:
    def weight(x: float) -> float:
        return math.exp(-form(torch.tensor([[x]], dtype=torch.float64), *couplings).item())

    one_site = math.log(quad(weight, -8, 8, epsabs=1e-12)[0])
    action = convert((1,), *couplings)
    reference = exact.phi4_moments((1,), action.mass_squared, action.quartic).log_z
    assert one_site == pytest.approx(reference - log_jacobian((1,), scale), abs=1e-9)
    action = convert((2, 2), *couplings)
    reference = exact.phi4_moments((2, 2), action.mass_squared, action.quartic).log_z
    four_sites = log_z_on_grid(lambda x: form(x, *couplings), (2, 2), n=36, reach=4.2)
    assert four_sites == pytest.approx(reference - log_jacobian((2, 2), scale), abs=1e-6)


def log_z_on_grid(energy: Callable[[Tensor], Tensor], extents: tuple[int, ...], n: int, reach: float) -> float:
    """log ∫ e^{-S} by the trapezoidal rule, exponentially accurate for what decays at ± reach."""
    points = torch.linspace(-reach, reach, n, dtype=torch.float64)
    x = torch.cartesian_prod(*[points] * math.prod(extents)).reshape(-1, *extents)
    return torch.logsumexp(-energy(x), 0).item() + math.prod(extents) * math.log(2 * reach / (n - 1))


def test_phi4_agrees_with_the_formula_and_its_special_cases() -> None:
    x = torch.randn(4, 3, 4, generator=generator(), dtype=torch.float64)
    kinetic = sum((x.roll(-1, axis) - x) ** 2 for axis in (1, 2))
    by_hand = (kinetic - 1.3 * x**2 + 0.7 * x**4).sum((1, 2))
    for action in (Phi4((3, 4), -1.3, 0.7), Scalar((3, 4), 1.0, -1.3, 0.7)):
        torch.testing.assert_close(action(x), by_hand)
    assert laws.distance(FreeField((3, 4), 0.4)(x), Phi4((3, 4), 0.4, 0.0)(x)) < 1e-13


def test_quartic_critical_point_is_that_of_the_literature() -> None:
    critical = Phi4.from_form_d((16, 16), kappa=0.680605 / 2, quartic=1.0)
    assert critical.mass_squared == pytest.approx(-1 / 0.3403025 - 4)
    assert critical.quartic == pytest.approx(1 / 0.3403025**2)


# ------------------------------------------------------------------------------------------- Gaussians and log Z


def gaussian(spectrum: Tensor, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """n fields of the Gaussian with this spectrum, and their log-density."""
    noise = torch.randn(n, *spectrum.shape, generator=generator(seed), dtype=torch.float64)
    axes = tuple(range(1, noise.ndim))
    x = torch.fft.ifftn(spectrum.sqrt() * torch.fft.fftn(noise, dim=axes), dim=axes).real
    return x, -0.5 * (noise**2).flatten(1).sum(1) - 0.5 * (2 * math.pi * spectrum).log().sum()


def log_weights(action: Action, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Fields of the Gaussian approximation and log(e^{-S} / q)."""
    spectrum = action.gaussian_spectrum()
    assert spectrum is not None
    x, log_prob = gaussian(spectrum, n, seed)
    return x, -action(x) - log_prob


@pytest.mark.parametrize("action", list(FreeField.examples()), ids=str)
def test_free_field_is_its_own_gaussian(action: FreeField) -> None:
    propagator = torch.fft.ifftn(action.gaussian_spectrum()).real.numpy()
    assert abs(propagator - exact.free_field_propagator(action.extents, action.mass_squared)).max() < 1e-14
    _, weights = log_weights(action, 50)
    assert weights.std() < 1e-12
    assert weights[0].item() == pytest.approx(exact.free_field_log_z(action.extents, action.mass_squared), abs=1e-11)


@pytest.mark.parametrize(("extents", "mass_squared", "quartic"), [((2, 2), -4, 8), ((3, 3), 0.5, 1), ((4,), -1, 0.5)])
def test_phi4_log_z_and_moments(extents: tuple[int, ...], mass_squared: float, quartic: float) -> None:
    x, weights = log_weights(Phi4(extents, mass_squared, quartic), 40_000)
    oracle = exact.phi4_moments(extents, mass_squared, quartic)
    assert effective_sample_size(weights).value > 0.3
    assert abs(log_mean_exp(weights).z_score(oracle.log_z)) < 4
    assert abs(reweighted_mean((x**2).flatten(1).mean(1), weights).z_score(oracle.phi_squared)) < 4


def scalar_bound(action: Scalar, spectrum: Tensor) -> float:
    """⟨S⟩ + ⟨log q⟩ in the Gaussian with this spectrum, up to a constant: at least -log Z."""
    stiffness = Scalar(action.extents, action.kinetic, 1.0, diagonal=action.diagonal).gaussian_spectrum()
    omega, g = 0.5 / stiffness - 1, spectrum.mean()
    onsite = action.mass_squared * g + 3 * action.quartic * g**2 + 15 * action.sextic * g**3
    return float((omega * spectrum - 0.5 * spectrum.log()).sum() + spectrum.numel() * onsite)


def dual_bound(action: IsingDual, spectrum: Tensor) -> float:
    """⟨S⟩ + ⟨log q⟩ in the Gaussian with this spectrum, up to a constant: at least -log Z."""
    sigma = float(spectrum.mean().sqrt())
    h = action.uniform_field
    density = lambda g: math.exp(-g * g / 2) * math.log(2 * math.cosh(sigma * g + h))  # noqa: E731
    log_cosh = quad(density, -12, 12, epsabs=1e-13, points=[0])[0] / math.sqrt(2 * math.pi)
    precision = 1 / action._spectrum()
    return float((0.5 * precision * spectrum - 0.5 * spectrum.log()).sum() - spectrum.numel() * log_cosh)


@pytest.mark.parametrize(
    "action", [*Scalar.examples(), *IsingDual.examples(), IsingDual((8, 8), 0.6), IsingDual((8, 8), 1.5)], ids=str
)
def test_gaussian_spectrum_is_the_best(action: Action) -> None:
    bound = scalar_bound if isinstance(action, Scalar) else dual_bound
    spectrum = action.gaussian_spectrum()
    assert spectrum is not None
    best = bound(action, spectrum)  # type: ignore[arg-type, operator]
    lattice = action.field.lattice
    for direction in (torch.ones(lattice.extents, dtype=torch.float64), lattice.laplacian_spectrum().cos()):
        for step in (-1e-2, 1e-2):
            assert bound(action, spectrum * (1 + step * direction)) > best  # type: ignore[operator]


# ------------------------------------------------------------------------------------------- Ising and its dual


@pytest.mark.parametrize(("extents", "coupling"), [((2,), 0.3), ((2,), -0.4), ((1,), 0.2)])
@pytest.mark.parametrize("margin", [0.3, 1.0])
def test_dual_partition_sum_by_quadrature(extents: tuple[int, ...], coupling: float, margin: float) -> None:
    dual = IsingDual(extents, coupling, margin)
    log_z = log_z_on_grid(dual.energy, extents, n=400, reach=18)
    enumerated = exact.ising_enumeration(extents, coupling).log_z
    assert dual.log_z_ising(log_z) == pytest.approx(enumerated, abs=1e-10)


@pytest.mark.parametrize(
    ("extents", "coupling"), [((2, 2), 0.2), ((3, 3), 0.2), ((3, 2), -0.15), ((2, 2, 2), 0.08), ((8,), 0.6)]
)
def test_dual_gives_the_spins_of_the_ising_model(extents: tuple[int, ...], coupling: float) -> None:
    dual, oracle = IsingDual(extents, coupling), exact.ising_enumeration(extents, coupling)
    x, weights = log_weights(dual, 40_000)
    spins = dual.sample_spins(x, generator(1))
    assert effective_sample_size(weights).value > 0.2
    assert abs(log_mean_exp(weights).z_score(oracle.log_z - dual.log_z_ising(0.0))) < 4
    energy = Ising(extents, coupling)(spins) / (coupling * spins[0].numel())
    assert abs(reweighted_mean(energy, weights).z_score(oracle.energy)) < 4
    magnetisation = spins.flatten(1).mean(1)
    for power in (2, 4):
        reference = (oracle.magnetisation_squared, oracle.magnetisation_fourth)[power // 2 - 1]
        assert abs(reweighted_mean(magnetisation**power, weights).z_score(reference)) < 4


@pytest.mark.parametrize(("extents", "coupling"), [((3, 3), K_CRITICAL), ((4, 2), -0.3), ((7,), 0.5), ((2, 2, 2), 0.2)])
def test_ising_partition_sum(extents: tuple[int, ...], coupling: float) -> None:
    signs = [torch.tensor([-1.0, 1.0], dtype=torch.float64)] * math.prod(extents)
    spins = torch.cartesian_prod(*signs).reshape(-1, *extents)
    action = Ising(extents, coupling)
    log_z = torch.logsumexp(-action(spins), 0).item()
    assert log_z == pytest.approx(exact.ising_enumeration(extents, coupling).log_z, abs=1e-11)
    flipped = spins.clone()
    flipped.view(len(spins), -1)[:, 0] *= -1
    change = 2 * (spins * action.force(spins)).flatten(1)[:, 0]
    torch.testing.assert_close(action(flipped) - action(spins), change, atol=1e-12, rtol=0)


def test_dual_is_accurate_far_out() -> None:
    dual, x = IsingDual((4, 4), K_CRITICAL), torch.full((1, 4, 4), 500.0, dtype=torch.float64)
    expected = 16 * (0.5 * 500**2 / (4 * K_CRITICAL * 2 + 0.3) - 500)
    assert dual(x).item() == pytest.approx(expected, rel=1e-13)
    assert dual(-x).item() == pytest.approx(expected, rel=1e-13)
    assert torch.equal(dual.sample_spins(x, generator()), torch.ones_like(x))


# ------------------------------------------------------------------------------------------- what the laws reject


@dataclass(frozen=True)
class Tampered(Action):
    """A free field with something wrong."""

    energy_of: Callable[[Tensor], Tensor] = lambda x: (x**2).flatten(1).sum(1)
    force_of: Callable[[Tensor], Tensor] = lambda x: -2 * x
    claims: tuple[Symmetry, ...] = (Translations(), SignFlip())
    spectrum: Tensor | None = None
    extents: tuple[int, ...] = (4, 4)

    @property
    def field(self) -> FieldSpace:
        return FreeField(self.extents, 1.0).field

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return self.claims

    @property
    def broken(self) -> Transformation:
        return Sign()

    def energy(self, x: Tensor) -> Tensor:
        return self.energy_of(x)

    def force(self, x: Tensor) -> Tensor:
        return self.force_of(x)

    def gaussian_spectrum(self) -> Tensor | None:
        return self.spectrum

    def __call__(self, x: Tensor) -> Tensor:
        return self.energy(x)

    def __mul__(self, factor: float) -> Action:
        return Tampered(self.energy_of)

    @classmethod
    def examples(cls) -> Iterator[Tampered]:
        yield cls()


def square(x: Tensor) -> Tensor:
    return (x**2).flatten(1).sum(1)


def in_place(x: Tensor) -> Tensor:
    x.data.mul_(1.5)
    return square(x)


CONTROLS = [
    (laws.one_value_per_field, Tampered(lambda x: square(x)[:, None])),
    (laws.one_value_per_field, Tampered(lambda x: square(x).double())),
    (laws.one_value_per_field, Tampered(force_of=lambda x: -2 * x.double())),
    (laws.precise_in_single, Tampered(lambda x: square(x if x.dtype == torch.float64 else x.bfloat16()).to(x))),
    (laws.follows_device, Tampered(lambda x: square(torch.zeros(1, 4, 4)))),
    (laws.invariant_as_claimed, Tampered(lambda x: square(x[..., :1]))),
    (laws.invariant_as_claimed, Tampered(lambda x: x.flatten(1).sum(1))),
    (laws.invariant_as_claimed, Tampered(claims=())),
    (laws.broken_as_claimed, Tampered()),
    (laws.force_is_minus_gradient, Tampered(force_of=lambda x: 2 * x)),
    (laws.force_is_minus_gradient, Tampered(force_of=lambda x: -2.001 * x)),
    (laws.force_is_differentiable, Tampered(force_of=lambda x: -2 * x.roll(1, 1))),
    (laws.force_is_differentiable, Tampered(in_place)),
    (laws.batch_independent, Tampered(lambda x: square(x - x.mean(0)))),
    (laws.batch_independent, Tampered(lambda x: square(x) * torch.arange(1, 1 + len(x)))),
    (laws.tiles, Tampered(lambda x: square(x) ** 2)),
    (laws.spectrum_is_covariance, Tampered(spectrum=torch.ones(4))),
    (laws.spectrum_is_covariance, Tampered(spectrum=-torch.ones(4, 4))),
    (laws.spectrum_is_covariance, Tampered(spectrum=torch.arange(1.0, 17.0).reshape(4, 4))),
    (laws.validates, Tampered()),
    (laws.algebra, Tampered()),
]


@pytest.mark.parametrize(("law", "action"), CONTROLS, ids=lambda value: getattr(value, "__name__", ""))
def test_law_rejects(law: Callable[[Action], None], action: Action) -> None:
    with pytest.raises(AssertionError):
        law(action)
