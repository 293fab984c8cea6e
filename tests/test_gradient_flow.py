"""The gradient flow against plane waves, its order by slope, its gradient, its symmetries; scales from known curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lattices.field_strength import energy_density, geometric_charge
from lattices.fields import FieldSpace
from lattices.gauge import GaugeTransformation
from lattices.gradient_flow import FlowHistory, flow_step, gradient_flow, t0, w0, wilson_velocity
from lattices.invariance import PointGroup
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge
from lattices.theories.wilson import link_field

SPACES = [link_field((3, 4), 1), link_field((3, 3), 2), link_field((3, 2, 2), 3), link_field((2, 2, 2, 2), 2)]
IDS = [f"{space.lattice.dimension}d-{space.target.shape}" for space in SPACES]
TIMES = torch.linspace(0.1, 2.0, 20, dtype=torch.float64)


def links(field: FieldSpace, n: int = 1) -> Tensor:
    return field.random(n, torch.Generator().manual_seed(1))


def plane_wave(field: FieldSpace, mode: int, size: float) -> tuple[Tensor, Tensor]:
    """The links exp(size T cos kx) in direction 1, k along axis 0; and the algebra elements T cos kx."""
    extents = field.lattice.extents
    k = 2 * math.pi * mode / extents[0]
    wave = torch.cos(k * torch.arange(extents[0], dtype=torch.float64)).reshape(-1, *(1,) * (len(extents) - 1))
    components = torch.zeros(1, len(extents), *extents, dtype=torch.float64)
    components[:, 1] = wave
    group = field.target.group  # type: ignore[attr-defined]
    basis = group.algebra_basis(None, None)[-1]
    v = components.reshape(*components.shape, *(1 for _ in field.target.shape)) * basis
    return field.exp(v * 0 + group.identity(), size * v), v


@pytest.mark.parametrize("field", SPACES, ids=IDS)
@pytest.mark.parametrize("size", [1e-4])
def test_plane_waves_decay_like_exp_of_minus_k_squared_t(field: FieldSpace, size: float) -> None:
    x, v = plane_wave(field, 1, size)
    lattice_momentum = 4 * math.sin(math.pi / field.lattice.extents[0]) ** 2
    time = 0.7
    flowed = gradient_flow(field, x, [time], step=0.05).links
    expected = field.exp(x * 0 + field.target.group.identity(), size * math.exp(-lattice_momentum * time) * v)  # type: ignore[attr-defined]
    assert float((flowed - expected).abs().max()) < 1e-3 * size
    assert float((flowed - x).abs().max()) > 0.3 * size


@pytest.mark.parametrize("field", SPACES, ids=IDS)
def test_velocity_is_luschers_whatever_beta(field: FieldSpace) -> None:
    x = links(field)
    for beta in (1.0, 5.0):
        if field.target.shape:
            n = field.target.shape[0]
            expected = 2 * n / beta * SUNGauge(field.lattice.extents, n, beta).force(x)
        else:
            expected = U1Gauge(field.lattice.extents, beta).force(x) / beta
        torch.testing.assert_close(wilson_velocity(field, x), expected)


@pytest.mark.parametrize("field", SPACES, ids=IDS)
def test_energy_falls_at_the_rate_of_the_gradient(field: FieldSpace) -> None:
    def total(y: Tensor) -> Tensor:
        return energy_density(field, y, clover=False).flatten(1).sum(1)

    x, z = links(field), wilson_velocity(field, links(field))
    step = 1e-4
    slope = (total(field.exp(x, step * z)) - total(field.exp(x, -step * z))) / (2 * step)
    torch.testing.assert_close(slope, -field.target.inner(z, z).flatten(1).sum(1), rtol=1e-5, atol=0)
    history = gradient_flow(field, x, TIMES, step=0.05)
    energies = history.plaquette / history.times**2
    assert (energies.diff(dim=1) < 0).all()
    assert (energies[:, 0] < total(x) / field.lattice.volume).all()


@pytest.mark.parametrize("field", SPACES, ids=IDS)
def test_third_order_and_embedded_second_order(field: FieldSpace) -> None:
    x, time = links(field), 0.4
    exact = gradient_flow(field, x, [time], step=time / 96).links
    errors = [float((gradient_flow(field, x, [time], step=time / n).links - exact).abs().max()) for n in (6, 12, 24)]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes == pytest.approx([3, 3], abs=0.4), errors
    estimates = [flow_step(field, x, step)[1] for step in (0.02, 0.01)]
    assert math.log2(estimates[0] / estimates[1]) == pytest.approx(3, abs=0.4)  # local error of a second-order step


def test_a_wrong_coefficient_loses_the_order() -> None:
    """Negative control: Euler's method with the same velocity has slope 1."""
    field = SPACES[1]

    def euler(n: int) -> Tensor:
        x = links(field)
        for _ in range(n):
            x = field.exp(x, 0.4 / n * wilson_velocity(field, x))
        return x

    exact = gradient_flow(field, links(field), [0.4], step=0.0025).links
    errors = [float((euler(n) - exact).abs().max()) for n in (16, 32)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("field", SPACES, ids=IDS)
def test_adaptive_steps_keep_the_tolerance(field: FieldSpace) -> None:
    x = links(field)
    exact = gradient_flow(field, x, TIMES[4:10:5], step=0.02)
    errors = []
    for tolerance in (1e-3, 1e-5):
        adaptive = gradient_flow(field, x, TIMES[4:10:5], step=1.0, tolerance=tolerance)
        errors.append(float((adaptive.clover - exact.clover).abs().max()))
        assert errors[-1] < 10 * tolerance
    assert errors[1] < errors[0]


@pytest.mark.parametrize("field", SPACES, ids=IDS)
def test_flow_commutes_with_symmetries(field: FieldSpace) -> None:
    x, times = links(field), [0.2, 0.4]
    history = gradient_flow(field, x, times, step=0.1)
    for g in (GaugeTransformation(3), *PointGroup().generators(field)[-2:]):
        moved = gradient_flow(field, field.act(g, x), times, step=0.1)
        torch.testing.assert_close(moved.clover, history.clover)
        torch.testing.assert_close(moved.plaquette, history.plaquette)
        difference = field.target.group.compose(moved.links, field.target.group.inverse(field.act(g, history.links)))  # type: ignore[attr-defined]
        assert float((difference - field.target.group.identity()).abs().max()) < 1e-10  # type: ignore[attr-defined]


def test_flow_smooths_the_clover_charge_to_a_whole_number() -> None:
    field = link_field((6, 6), 1)
    generator = torch.Generator().manual_seed(2)
    x = 0.5 * torch.randn(20, 2, 6, 6, generator=generator, dtype=torch.float64)
    history = gradient_flow(field, field.exp(x * 0, x), [0.0, 4.0], step=0.05)
    assert isinstance(history, FlowHistory)
    assert history.charge is not None
    before, after = history.charge.unbind(1)
    charge = geometric_charge(field, history.links)
    assert float((after - charge).abs().max()) < 0.05 < float((before - charge).abs().max())
    assert (history.clover[:, 0] == 0).all()
    assert gradient_flow(SPACES[1], links(SPACES[1]), [0.1]).charge is None
    four = gradient_flow(SPACES[3], links(SPACES[3]), [0.1, 0.2]).charge
    assert four is not None
    assert four.shape == (1, 2)


# --------------------------------------------------------------------------------------------------------- the scales


def curves(n: int = 40) -> Tensor:
    """t² E = (a + noise) t²: t₀ = √(0.3/a), w₀² = t with 2 a t² = 0.3."""
    noise = torch.randn(n, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (0.2 + 0.01 * noise) * TIMES**2


def test_scales_of_a_known_curve() -> None:
    measured = curves()
    mean = (measured[:, :1] / TIMES[0] ** 2).mean().item()
    relative = (measured[:, 0] / TIMES[0] ** 2).std().item() / mean / math.sqrt(len(measured))
    first = t0(TIMES, measured)
    assert first.value == pytest.approx(math.sqrt(0.3 / mean), rel=1e-6)
    assert first.error == pytest.approx(first.value * relative / 2, rel=0.02)
    second = w0(TIMES, measured)
    assert second.value == pytest.approx((0.15 / mean) ** 0.25, rel=1e-6)
    assert second.error == pytest.approx(second.value * relative / 4, rel=0.02)
    assert t0(TIMES, measured, reference=0.2).value < first.value
    assert abs(first.z_score(math.sqrt(0.3 / 0.2))) < 4
    assert abs(first.z_score(math.sqrt(0.3 / 0.25))) > 4


def test_t0_of_su2_in_four_dimensions_is_found() -> None:
    field = SPACES[3]
    x = field.exp(links(field, 4) @ links(field, 4).mH, 0.7 * field.target.normal(links(field, 4), torch.Generator()))
    history = gradient_flow(field, x, torch.linspace(0.02, 0.1, 9), step=0.05)
    reference = float(history.clover.mean(0)[4:6].mean())
    found = t0(history.times, history.clover, reference)
    assert float(history.times[4]) < found.value < float(history.times[5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gradient_flow(SPACES[0], links(SPACES[0]), [0.2, 0.1]), "increasing times"),
        (lambda: gradient_flow(SPACES[0], links(SPACES[0]), []), "increasing times"),
        (lambda: gradient_flow(SPACES[0], links(SPACES[0]), [1.0], step=0.0), "positive step"),
        (lambda: gradient_flow(SPACES[0], links(SPACES[0]), [1.0], tolerance=-1.0), "positive step"),
        (lambda: gradient_flow(SPACES[0], links(SPACES[0]) * math.nan, [1.0]), "finite fields"),
        (lambda: t0(TIMES, curves(), reference=7.0), "flow longer"),
        (lambda: t0(TIMES[:3], curves()[:, :3]), "measure more times"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
