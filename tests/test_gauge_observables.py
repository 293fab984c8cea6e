"""Loops, charges and energies of link fields: definitions, constant fields of known charge, symmetries."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lattices import exact
from lattices.field_strength import charge_density, clover_charge, energy_density, field_strength, geometric_charge
from lattices.fields import FieldSpace
from lattices.gauge import CentreTransformation, Conjugation, GaugeTransformation, OneLink
from lattices.gauge_observables import gauge_observables
from lattices.invariance import PointGroup, PointTransformation, Translation
from lattices.lattice import Lattice
from lattices.loops import matrices, real_trace, transporter
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge
from lattices.theories.wilson import link_field
from lattices.wilson_loops import (
    creutz_ratio,
    plaquette,
    plaquette_angles,
    polyakov_correlator,
    polyakov_loops,
    wilson_loops,
)
from symmetries.spectra import wrap

SPACES = [
    link_field(extents, n)
    for extents, n in [((4, 4), 1), ((3, 4), 2), ((3, 3, 3), 3), ((3, 3, 3, 3), 1), ((3, 3, 3, 3), 2), ((3, 3), 4)]
]
IDS = [f"{space.lattice.extents}-{space.target.shape}" for space in SPACES]
CHARGED = [SPACES[0], *SPACES[3:5]]


def links(field: FieldSpace, n: int = 3, seed: int = 1) -> Tensor:
    """Smooth random fields, as signs and charges of rough ones would cancel."""
    generator = torch.Generator().manual_seed(seed)
    haar = field.random(n, generator)
    unit = haar * 0 if not field.target.shape else haar @ haar.mH
    return field.exp(unit, 0.6 * field.target.normal(unit, generator))


def flux(extents: tuple[int, ...], charges: tuple[int, ...]) -> Tensor:  # -> (1, d, *extents)
    """Angles with constant field strength 2π charge / area in the planes (0, 1), (2, 3)."""
    x = torch.zeros(1, len(extents), *extents, dtype=torch.float64)
    coordinates = Lattice(extents).coordinates().double().reshape(*extents, -1)
    for mu, charge in zip((0, 2), charges):
        area = extents[mu] * extents[mu + 1]
        first, second = coordinates[..., mu], coordinates[..., mu + 1]
        x[0, mu + 1] = 2 * math.pi * charge / area * first
        x[0, mu] = -2 * math.pi * charge / extents[mu + 1] * second * (first == extents[mu] - 1)
    return wrap(x)


def all_observables(field: FieldSpace, x: Tensor) -> dict[str, Tensor]:
    values = gauge_observables(field, x) | {"loops": wilson_loops(field, x, (2, 2))}
    values["polyakov_correlator"] = polyakov_correlator(polyakov_loops(field, x, 0))
    return values | {f"energy_{clover}": energy_density(field, x, clover).mean() for clover in (True, False)}


# ------------------------------------------------------------------------------------------------------ definitions


@pytest.mark.parametrize("field", SPACES, ids=IDS)
def test_wilson_loops_are_products_around_rectangles(field: FieldSpace) -> None:
    x, d = links(field), field.lattice.dimension
    measured = wilson_loops(field, x, (2, 1))
    torch.testing.assert_close(measured[:, 0, 0], plaquette(field, x))
    u = matrices(field, x)
    for r in (1, 2):
        planes = [(m, n) for m in range(1, d + 1) for n in range(1, d + 1) if m != n]
        traces = [real_trace(transporter(u, (m,) * r + (n,) + (-m,) * r + (-n,))).flatten(1).mean(1) for m, n in planes]
        torch.testing.assert_close(measured[:, r - 1, 0], torch.stack(traces).mean(0))
    square = wilson_loops(field, x, (2, 2))
    torch.testing.assert_close(square, square.mT)


@pytest.mark.parametrize("field", SPACES, ids=IDS)
def test_plaquette_energy_is_the_action(field: FieldSpace) -> None:
    x, n = links(field), field.target.shape[0] if field.target.shape else 1
    extents = field.lattice.extents
    action = U1Gauge(extents, beta=1.0) if n == 1 else SUNGauge(extents, n=n, beta=2.0 * n)
    smallest = action.beta * field.lattice.volume * math.comb(len(extents), 2)
    energy = energy_density(field, x, clover=False)
    torch.testing.assert_close(energy.flatten(1).sum(1), action(x) + smallest)


@pytest.mark.parametrize("field", SPACES, ids=IDS)
def test_clover_and_plaquette_energies_agree_on_smooth_fields(field: FieldSpace) -> None:
    x = links(field)
    unit = x * 0 if not field.target.shape else x @ x.mH
    moving = field.target.normal(unit, torch.Generator().manual_seed(2))
    constant = moving.mean(field.lattice_axes, keepdim=True).expand_as(moving)  # energy from commutators alone
    y = field.exp(unit, 0.02 * constant)
    torch.testing.assert_close(energy_density(field, y), energy_density(field, y, clover=False), rtol=1e-2, atol=1e-12)


def test_field_strength_is_covariant() -> None:
    for field in SPACES[1:3]:
        x, g = links(field), GaugeTransformation(5)
        f, moved = field_strength(field, x), field_strength(field, field.act(g, x))
        torch.testing.assert_close(moved.abs().square().sum((-2, -1)), f.abs().square().sum((-2, -1)))
        torch.testing.assert_close(f, -f.mH)
        assert float((moved - f).abs().max()) > 0.1


# --------------------------------------------------------------------------------------------- fields of known charge


@pytest.mark.parametrize("charge", [-2, 0, 1, 3])
def test_constant_flux_in_the_plane(charge: int) -> None:
    extents = (5, 6)
    field, x, f = link_field(extents, 1), flux(extents, (charge,)), 2 * math.pi * charge / 30
    assert geometric_charge(field, x).tolist() == [charge]
    torch.testing.assert_close(wrap(plaquette_angles(x)), torch.full((1, 1, 5, 6), f, dtype=x.dtype))
    assert clover_charge(field, x).item() == pytest.approx(30 * math.sin(f) / (2 * math.pi))
    assert energy_density(field, x).mean().item() == pytest.approx(math.sin(f) ** 2 / 2)
    assert wilson_loops(field, x, (3, 2))[0, 2, 1].item() == pytest.approx(math.cos(6 * f))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("charges", [(1, 1), (-1, 2)])
def test_constant_flux_in_four_dimensions(n: int, charges: tuple[int, int]) -> None:
    extents = (5, 5, 6, 5)
    field, angles = link_field(extents, n), flux(extents, charges)
    signs = torch.tensor([1.0, -1.0, 0.0][:n], dtype=torch.float64)
    phases = angles[..., None] * signs
    x = angles if n == 1 else torch.polar(torch.ones_like(phases), phases).diag_embed()
    areas = (25, 30)
    sines = [math.sin(2 * math.pi * q / area) * area / (2 * math.pi) for q, area in zip(charges, areas)]
    expected = math.prod(sines) * (1 if n == 1 else 2)
    assert clover_charge(field, x).item() == pytest.approx(expected)
    assert abs(expected - (1 if n == 1 else 2) * math.prod(charges)) < 0.5
    torch.testing.assert_close(charge_density(field, x).var().item(), 0.0, atol=1e-20, rtol=0)


@pytest.mark.parametrize("field", SPACES, ids=IDS)
def test_pure_gauge_has_no_field_strength(field: FieldSpace) -> None:
    y = field.random(2, torch.Generator().manual_seed(3))
    unit = y * 0 if not field.target.shape else y @ y.mH
    x = field.act(GaugeTransformation(4), unit)
    values = all_observables(field, x)
    torch.testing.assert_close(values["loops"], torch.ones_like(values["loops"]))
    for name in {"charge", "energy_True", "energy_False"} & set(values):
        assert values[name].abs().max() < 1e-12
    torch.testing.assert_close(values["polyakov_modulus"], torch.ones_like(values["plaquette"]))


# --------------------------------------------------------------------------------------------------------- symmetries


@pytest.mark.parametrize("field", SPACES, ids=IDS)
def test_observables_are_gauge_invariant(field: FieldSpace) -> None:
    x = links(field)
    values, moved = all_observables(field, x), all_observables(field, field.act(GaugeTransformation(2), x))
    assert all(torch.allclose(values[name], moved[name], atol=1e-12) for name in values)
    broken = all_observables(field, field.act(OneLink(), x))
    for name in set(values) - {"charge", "charge_squared"}:
        assert not torch.allclose(values[name], broken[name], atol=1e-6), f"{name} does not see its links"


@pytest.mark.parametrize("field", SPACES, ids=IDS)
def test_observables_do_not_depend_on_the_origin_or_the_axes(field: FieldSpace) -> None:
    x = links(field)
    values = gauge_observables(field, x) | {"loops": wilson_loops(field, x, (2, 2))}
    unmoved = Translation((1,) * field.lattice.dimension), *PointGroup().generators(field)
    for g in unmoved:
        image = field.act(g, x)
        moved = gauge_observables(field, image) | {"loops": wilson_loops(field, image, (2, 2))}
        for name in set(values) - {"charge"}:
            torch.testing.assert_close(moved[name], values[name], msg=f"{name} under {g}")


@pytest.mark.parametrize("field", CHARGED, ids=lambda f: str(f.lattice.extents))
def test_charges_are_pseudoscalar(field: FieldSpace) -> None:
    x, d = links(field), field.lattice.dimension
    if d == 2:
        x = field.exp(x * 0.3, flux((4, 4), (1,)).expand_as(x))
    charge = gauge_observables(field, x)["charge"]
    assert charge.abs().min() > 1e-3
    for g in PointGroup().generators(field):
        assert isinstance(g, PointTransformation)
        parity = torch.linalg.det(torch.tensor(g.matrix, dtype=x.real.dtype))
        torch.testing.assert_close(gauge_observables(field, field.act(g, x))["charge"], parity * charge)
    conjugated = gauge_observables(field, field.act(Conjugation(), x))["charge"]
    torch.testing.assert_close(conjugated, -charge if d == 2 else charge)
    if d == 2:
        torch.testing.assert_close(clover_charge(field, field.act(Conjugation(), x)), -clover_charge(field, x))


def test_polyakov_loops_turn_with_the_centre() -> None:
    for field, phase in ((SPACES[0], 1.0), (SPACES[1], math.pi), (SPACES[2], 2 * math.pi / 3)):
        x, axis = links(field), 1
        turned = polyakov_loops(field, field.act(CentreTransformation(axis), x), axis)
        torch.testing.assert_close(turned, polyakov_loops(field, x, axis) * complex(math.cos(phase), math.sin(phase)))
        other = polyakov_loops(field, field.act(CentreTransformation(axis), x), 0)
        torch.testing.assert_close(other, polyakov_loops(field, x, 0))
        assert other.shape == (3, *field.lattice.extents[1:])


def test_polyakov_correlator_is_its_definition() -> None:
    loops = polyakov_loops(SPACES[2], links(SPACES[2]), 0)
    measured = polyakov_correlator(loops)
    moved = loops.roll((-1, -2), (1, 2))
    torch.testing.assert_close(measured[:, 1, 2], (loops.conj() * moved).real.flatten(1).mean(1))
    torch.testing.assert_close(measured[:, 0, 0], loops.abs().square().flatten(1).mean(1))


# ------------------------------------------------------------------------------------------------------ Creutz ratios


def test_creutz_ratios_of_area_and_perimeter_laws() -> None:
    sides = torch.arange(1, 4, dtype=torch.float64)
    area, perimeter = torch.outer(sides, sides), sides[:, None] + sides
    noise = 1 + 1e-6 * torch.randn(50, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loops = torch.exp(-0.3 * area - 0.1 * perimeter) * noise
    for r, t in ((2, 2), (2, 3), (3, 3)):
        estimate = creutz_ratio(loops, r, t)
        assert abs(estimate.z_score(0.3)) < 4
        assert 0 < estimate.error < 1e-5
    assert creutz_ratio(loops, 1, 1).value == pytest.approx(0.5, abs=1e-5)


def test_fields_at_infinite_temperature() -> None:
    field = link_field((4, 4), 1)
    x = field.random(20_000, torch.Generator().manual_seed(1))
    charge_squared = gauge_observables(field, x)["charge_squared"]
    error = charge_squared.std().item() / math.sqrt(len(x))
    assert abs(charge_squared.mean().item() - exact.u1_charge_squared((4, 4), 0.0)) < 4 * error < 0.1
    assert abs(charge_squared.mean().item() - exact.u1_charge_squared((4, 4), 1.0)) > 4 * error


def test_precision_is_kept() -> None:
    for field in SPACES[:2]:
        x = links(field)
        single = x.to(torch.complex64 if x.is_complex() else torch.float32)
        for name, value in all_observables(field, single).items():
            assert value.dtype == torch.float32, name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plaquette(FieldSpace(Lattice((4, 4))), torch.zeros(1, 4, 4)), "group elements on links"),
        (lambda: wilson_loops(SPACES[0], links(SPACES[0]), (4, 1)), "loops must not wrap"),
        (lambda: polyakov_loops(SPACES[0], links(SPACES[0]), 2), "lattice axis from -2 to 1"),
        (lambda: geometric_charge(SPACES[1], links(SPACES[1])), r"U\(1\) links in two dimensions"),
        (lambda: clover_charge(SPACES[2], links(SPACES[2])), "four dimensions"),
        (lambda: creutz_ratio(torch.ones(3, 2, 2), 3, 1), "measure longer loops"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
