"""Observables of spins: exact answers on small lattices, limits, invariance under what they claim, controls."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from lattices import exact
from lattices import spin_observables as spins
from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Real, Sphere, Transformation
from lattices.invariance import PointGroup, Sign, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.spins import AngleMap, GlobalRotations, SpinRotation
from lattices.statistics import effective_sample_size, jackknife, reweighted_mean
from lattices.theories.on import ON
from lattices.theories.xy import XY
from tests.laws.fields import generator

SPACES = [
    FieldSpace(Lattice((4, 6)), Circle()),
    FieldSpace(Lattice((4, 4)), Sphere(2)),
    FieldSpace(Lattice((2, 3, 4)), Sphere(3)),
    FieldSpace(Lattice((5,)), Sphere(1)),
    FieldSpace(Lattice((3, 4, 2)), Circle()),
]
PLANE, SPHERES = SPACES[0], SPACES[1]


def ordered(field: FieldSpace) -> Tensor:
    x = torch.zeros(1, *field.event_shape, dtype=torch.float64)
    if isinstance(field.target, Sphere):
        x[..., 0] = 1
    return x


def twisted(field: FieldSpace, turns: int, axis: int = 0) -> Tensor:
    """Angles, or spins in the first two components, that turn a whole number of times along an axis."""
    extent = field.lattice.extents[axis]
    steps = 2 * math.pi * turns / extent * field.lattice.coordinates()[:, axis].double().reshape(field.lattice.extents)
    angles = torch.remainder(steps + math.pi, 2 * math.pi) - math.pi
    if isinstance(field.target, Circle):
        return angles[None]
    rest = [torch.zeros_like(angles)] * (field.target.shape[0] - 2)
    return torch.stack([angles.cos(), angles.sin(), *rest], -1)[None]


# ------------------------------------------------------------------------------------------- ordered and twisted


@pytest.mark.parametrize("field", SPACES, ids=str)
def test_order(field: FieldSpace) -> None:
    x, values = ordered(field), spins.spin_observables(field, ordered(field))
    d, volume = field.lattice.dimension, field.lattice.volume
    assert values["energy"].item() == -d
    assert values["magnetisation"].item() == pytest.approx(1)
    assert values["structure_factor_zero"].item() == pytest.approx(volume)
    assert values["structure_factor_one"].item() < 1e-25
    assert (spins.two_point_function(field, x) - 1).abs().max() < 1e-14
    n = field.target.shape[0] if field.target.shape else 2
    assert spins.helicity_modulus(field, x, 1.0).tolist() == [pytest.approx([2 / n] * d)]


@pytest.mark.parametrize("field", SPACES, ids=str)
def test_a_twist_by_hand(field: FieldSpace) -> None:
    x, extent = twisted(field, 1), field.lattice.extents[0]
    angle, n = 2 * math.pi / extent, field.target.shape[0] if field.target.shape else 2
    assert spins.energy(field, x).item() == pytest.approx(-(field.lattice.dimension - 1) - math.cos(angle))
    share = 1 if extent == 2 else 0.5  # a turn is a wave of either direction
    assert spins.structure_factor(field, x, 0, 1).item() == pytest.approx(field.lattice.volume * share)
    current = 2 * 0.7 / (n * (n - 1)) * field.lattice.volume * math.sin(angle) ** 2
    assert spins.helicity_modulus(field, x, 0.7)[0, 0].item() == pytest.approx(2 / n * math.cos(angle) - current)
    correlator = spins.time_slice_correlator(field, x, 0)[0] / (field.lattice.volume / extent)
    assert correlator.tolist() == pytest.approx([math.cos(angle * t) for t in range(extent)])


# ------------------------------------------------------------------------------------------- the same by brute force


@pytest.mark.parametrize("field", SPACES, ids=str)
def test_correlators_by_hand(field: FieldSpace) -> None:
    x = field.random(3, generator())
    s = spins.spin_components(field, x)
    found = spins.two_point_function(field, x)
    for delta in ((0,) * field.lattice.dimension, (1,) * field.lattice.dimension):
        shifted = s.roll([-k for k in delta], field.lattice.axes)
        torch.testing.assert_close(found[(..., *delta)], (s * shifted).sum(1).flatten(1).mean(1))
    total = found.flatten(1).sum(1)
    torch.testing.assert_close(total, spins.structure_factor(field, x, mode=0))
    wave = torch.fft.fft(spins.time_slice_correlator(field, x), dim=1)[:, 1].real
    torch.testing.assert_close(wave, spins.structure_factor(field, x, -1, 1))
    torch.testing.assert_close(total, field.lattice.volume * spins.magnetisation(field, x).square().sum(1))


@pytest.mark.parametrize("action", [*XY.examples(), *ON.examples()], ids=str)
def test_energy_is_that_of_the_action(action: XY | ON) -> None:
    x = action.field.random(4, generator())
    plain = XY(action.extents, action.beta) if isinstance(action, XY) else action
    torch.testing.assert_close(spins.energy(action.field, x) * action.beta * action.field.lattice.volume, plain(x))


# ------------------------------------------------------------------------------------------- exact averages


def weighted(action: Action, n: int = 60_000) -> tuple[Tensor, Tensor]:
    x = action.field.random(n, generator(3))
    log_weights = -action(x)
    assert effective_sample_size(log_weights).value > 0.05
    return x, log_weights


@pytest.mark.parametrize(("n", "length", "beta"), [(2, 4, 1.0), (3, 4, 1.2), (3, 3, -0.8)])
def test_helicity_modulus_is_the_response_to_a_twist(n: int, length: int, beta: float) -> None:
    """A ring twisted by φ has Z(φ) = Σ_l λ_l^L χ_l(φ), and -∂²log Z = β Υ / L."""
    action = XY((length,), beta) if n == 2 else ON((length,), n, beta)
    link = exact.on_link(n, beta)
    l = np.arange(len(link.ratios))
    curvature = 2 * l**2 * (l > 0) if n == 2 else l * (l + 1) * (2 * l + 1) / 3
    total = (link.dimensions * link.ratios**length).sum()
    modulus = length / beta * float((curvature * link.ratios**length).sum() / total)
    x, log_weights = weighted(action)
    found = reweighted_mean(spins.helicity_modulus(action.field, x, beta)[:, 0], log_weights)
    assert abs(found.z_score(modulus)) < 4
    assert (
        abs(reweighted_mean(spins.helicity_modulus(action.field, x, beta / 2)[:, 0], log_weights).z_score(modulus)) > 4
    )


def test_correlation_length_of_a_chain() -> None:
    """⟨s_x·s_y⟩ = u^|x-y| has ξ = √u / (1 - u), and independent spins have none."""
    u, t = float(exact.on_link(2, 2.0).ratios[1]), torch.arange(-60, 60, dtype=torch.float64)
    at_zero, at_one = float((u ** t.abs()).sum()), float((u ** t.abs() * (2 * math.pi * t / 120).cos()).sum())
    assert spins.correlation_length(at_zero, at_one, 120) == pytest.approx(math.sqrt(u) / (1 - u), rel=1e-6)
    values = spins.spin_observables(PLANE, PLANE.random(5000, generator()))
    length = partial(spins.correlation_length, extent=6)
    found = jackknife(length, values["structure_factor_zero"], values["structure_factor_one"])
    assert found.value < 0.3
    assert spins.correlation_length(1.0, 2.0, 6) == 0


def test_vortices_and_heat_of_free_spins() -> None:
    x = PLANE.random(20_000, generator())
    density = spins.vortex_density(PLANE, x)
    assert abs(density.mean() - 1 / 3) < 4 * density.std() / math.sqrt(len(x))
    values = spins.spin_observables(PLANE, x)
    heat = jackknife(partial(spins.specific_heat, beta=2.0, volume=24), values["energy"], values["energy_squared"])
    assert abs(heat.z_score(2.0**2 * 2 / 2)) < 4  # d / n: the variance of one bond is 1/n


@pytest.mark.parametrize("action", [XY((3, 3), 8.0), ON((3, 3), 3, 12.0)], ids=str)
def test_weak_coupling(action: XY | ON) -> None:
    """Spin waves: E → -d + (n - 1)(1 - 1/V)/2β, within a tenth of the correction."""
    from flows.sampling.hmc import HMC
    from flows.sampling.kernel import run

    x = ordered(action.field).expand(64, *action.field.event_shape).clone()
    kernel = HMC(action, 0.07, 10)
    history = run(kernel, kernel.init(x), 150, generator(), lambda y: {"energy": spins.energy(action.field, y)})
    n = 2 if isinstance(action, XY) else action.n
    correction = (n - 1) * (1 - 1 / 9) / (2 * action.beta)
    assert float(history.measured["energy"][:, 50:].mean()) == pytest.approx(-2 + correction, abs=0.1 * correction)


# ------------------------------------------------------------------------------------------- topology


@pytest.mark.parametrize("field", [PLANE, SPACES[4]], ids=str)
def test_vortices_cancel(field: FieldSpace) -> None:
    q = spins.vorticity(field, field.random(50, generator()))
    assert q.shape[1] == field.lattice.dimension * (field.lattice.dimension - 1) // 2
    assert set(q.unique().tolist()) == {-1.0, 0.0, 1.0}
    planes = [(mu, nu) for mu in field.lattice.axes for nu in field.lattice.axes if mu < nu]
    for k, plane in enumerate(planes):
        assert q[:, k].sum(plane).abs().max() == 0


def test_a_vortex_pair() -> None:
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    field = FieldSpace(Lattice((8, 8)), Circle())
    angles = torch.atan2(y - 3.5, x - 1.5) - torch.atan2(y - 3.5, x - 5.5)
    q = spins.vorticity(field, field.exp(angles[None].double(), torch.zeros(1, 8, 8, dtype=torch.float64)))[0, 0]
    assert q[3, 1] == -q[3, 5] != 0
    assert abs(q[2:6, 1:7]).sum() == 2


@pytest.mark.parametrize(("mass", "charge"), [(1.0, 1), (-1.0, -1), (2.5, 0), (-2.5, 0)])
def test_fields_that_cover_the_sphere(mass: float, charge: int) -> None:
    """(sin p, sin q, m + cos p + cos q) covers it once for 0 < |m| < 2, on opposite sides."""
    p, q = torch.meshgrid(*[2 * math.pi * torch.arange(12, dtype=torch.float64) / 12] * 2, indexing="ij")
    vector = torch.stack([p.sin(), q.sin(), mass + p.cos() + q.cos()], -1)[None]
    field, x = FieldSpace(Lattice((12, 12)), Sphere(2)), vector / vector.norm(dim=-1, keepdim=True)
    found = spins.topological_charge(field, x).item()
    assert abs(found) == abs(charge)
    assert found == spins.topological_charge(field, ordered(field)).item() + found
    if charge:
        assert found * charge == spins.topological_charge(field, -x).item() * -charge
        assert spins.topological_charge(field, x.transpose(1, 2)).item() == -found


def test_charges_are_whole_before_rounding() -> None:
    x = SPHERES.random(200, generator())
    right, up = SPHERES.lattice_axes
    corner = x.roll((-1, -1), (right, up))
    areas = spins._area(x, x.roll(-1, right), corner) + spins._area(x, corner, x.roll(-1, up))
    charge = areas.flatten(1).sum(1) / (4 * math.pi)
    assert (charge - charge.round()).abs().max() < 1e-12
    assert torch.equal(charge.round(), spins.topological_charge(SPHERES, x))
    assert len(charge.round().unique()) > 2


# ------------------------------------------------------------------------------------------- invariance


def scalars(field: FieldSpace) -> dict[str, Callable[[Tensor], Tensor]]:
    names = spins.spin_observables(field, ordered(field))
    even = [name for name in names if not name.startswith("charge")]
    found = {name: (lambda x, name=name: spins.spin_observables(field, x)[name]) for name in even}
    return found | {"helicity": lambda x: spins.helicity_modulus(field, x, 0.8).sum(1)}


@pytest.mark.parametrize("field", SPACES, ids=str)
@pytest.mark.parametrize("symmetry", [Translations(), PointGroup(), GlobalRotations()], ids=str)
def test_invariance(field: FieldSpace, symmetry: Symmetry) -> None:
    x = field.random(20, generator())
    for g in symmetry.generators(field):
        moved = field.act(g, x)
        for name, observable in scalars(field).items():
            torch.testing.assert_close(observable(moved), observable(x), msg=f"{name} changes under {g}")


@pytest.mark.parametrize("field", SPACES, ids=str)
def test_what_is_no_symmetry_changes_them(field: FieldSpace) -> None:
    x = field.random(20, generator())
    for name, observable in scalars(field).items():
        changed = (observable(field.act(SiteSign(), x)) - observable(x)).abs().max()
        assert changed > 1e-3, f"{name} does not notice one spin"


@pytest.mark.parametrize(
    ("field", "observable", "g"),
    [
        (PLANE, lambda f, x: spins.vorticity(f, x), Sign()),
        (SPHERES, lambda f, x: spins.topological_charge(f, x), Sign()),
        (SPHERES, lambda f, x: spins.topological_charge(f, x), SpinRotation(((-1, 0, 0), (0, 1, 0), (0, 0, 1)))),
    ],
    ids=["vorticity", "charge", "mirrored charge"],
)
def test_odd_observables(field: FieldSpace, observable: Callable, g: Transformation) -> None:
    x = field.random(100, generator())
    assert torch.equal(observable(field, field.act(g, x)), -observable(field, x))
    assert observable(field, x).abs().max() > 0


def test_charge_is_invariant() -> None:
    x = SPHERES.random(100, generator())
    charge = spins.topological_charge(SPHERES, x)
    for g in [*Translations().generators(SPHERES), *GlobalRotations().generators(SPHERES)[:2]]:
        assert torch.equal(spins.topological_charge(SPHERES, SPHERES.act(g, x)), charge)
    assert torch.equal(spins.topological_charge(SPHERES, x.transpose(1, 2)), -charge)
    y = PLANE.random(100, generator())
    assert torch.equal(spins.vorticity(PLANE, PLANE.act(AngleMap(1.0), y)), spins.vorticity(PLANE, y))


# ------------------------------------------------------------------------------------------- bad input


def test_other_fields_are_refused() -> None:
    scalar = FieldSpace(Lattice((4, 4)), Real())
    x = scalar.random(1, generator())
    for function in (spins.energy, spins.magnetisation, spins.two_point_function, spins.spin_observables):
        with pytest.raises(TypeError, match="angles or unit vectors"):
            function(scalar, x)
    with pytest.raises(TypeError, match="angles in two or more"):
        spins.vorticity(SPHERES, SPHERES.random(1, generator()))
    with pytest.raises(TypeError, match="three components"):
        spins.topological_charge(PLANE, PLANE.random(1, generator()))


@pytest.mark.parametrize("field", SPACES, ids=str)
def test_single_precision(field: FieldSpace) -> None:
    x = field.random(10, generator(), torch.float32)
    double = spins.spin_observables(field, x.double())
    for name, value in spins.spin_observables(field, x).items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(value.double(), double[name], rtol=2e-5, atol=2e-5)
