"""Clock spins, the J₁–J₂ model of n-component spins and their family: laws, limits, enumeration, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lattices import exact
from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Sphere
from lattices.invariance import SignFlip
from lattices.lattice import Lattice
from lattices.spins import ClockRotations, GlobalRotations
from lattices.theories import theories
from lattices.theories.clock import Clock, ClockSpins
from lattices.theories.ising import Ising
from lattices.theories.on import ON
from lattices.theories.sphere_mixture import SphereMixture
from lattices.theories.spin_family import SpinFamily
from lattices.theories.spin_model import SpinModel
from lattices.theories.xy import XY
from tests.laws import actions as laws
from tests.laws import fields as field_laws
from tests.laws.fields import generator

ACTIONS = [*Clock.examples(), *SpinModel.examples()]
FAMILIES = list(SpinFamily.examples())


@pytest.mark.parametrize("action", ACTIONS, ids=str)
@pytest.mark.parametrize("law", [*laws.ACTION_LAWS, laws.tiles], ids=lambda law: law.__name__)
def test_action_law(law: Callable[[Action], None], action: Action) -> None:
    law(action)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize("law", [*laws.FAMILY_LAWS, laws.linear_in_couplings], ids=lambda law: law.__name__)
def test_family_law(law: Callable[[SpinFamily], None], family: SpinFamily) -> None:
    law(family)


@pytest.mark.parametrize("q", [3, 4, 5])
@pytest.mark.parametrize("law", field_laws.FIELD_LAWS, ids=lambda law: law.__name__)
def test_field_law(law: Callable[[FieldSpace], None], q: int) -> None:
    if law is not field_laws.random_is_centred or q % 2:  # -π has no partner among an even number of angles
        law(FieldSpace(Lattice((4, 4)), ClockSpins(q)))


def test_discovery() -> None:
    assert theories()["clock"] is Clock
    assert theories()["spin-model"] is SpinModel
    assert "spin-family" not in theories()


# ------------------------------------------------------------------------------------------- clock spins


def every_clock(extents: tuple[int, ...], q: int) -> Tensor:  # -> (q^V, *extents)
    states = ClockSpins(q).angle(torch.arange(q, dtype=torch.float64))
    return torch.cartesian_prod(*[states] * math.prod(extents)).reshape(-1, *extents)


@pytest.mark.parametrize(("extents", "q", "beta"), [((2, 3), 4, 0.7), ((5,), 3, -0.6), ((2, 2), 6, 1.2)])
def test_clock_partition_sum(extents: tuple[int, ...], q: int, beta: float) -> None:
    log_z = torch.logsumexp(-Clock(extents, q, beta)(every_clock(extents, q)), 0).item()
    assert log_z == pytest.approx(exact.clock_enumeration(extents, beta, q).log_z, abs=1e-11)


@pytest.mark.parametrize("q", [2, 3, 6, 7])
def test_clock_spins_are_q_roots_of_one(q: int) -> None:
    target = ClockSpins(q)
    x = target.random((20_000,), generator(), torch.float64)
    assert ((x >= -math.pi) & (x < math.pi)).all()
    counts = torch.unique(target.state(x) % q, return_counts=True)[1]
    assert len(counts) == q
    assert ((counts - 20_000 / q) ** 2 * q / 20_000).sum() < q - 1 + 4 * math.sqrt(2 * (q - 1))  # χ²
    once = target.exp(x, torch.full_like(x, 2 * math.pi / q))
    assert (target.state(once - x) % q == 1).all()
    assert torch.equal(target.exp(once, torch.full_like(x, -2 * math.pi / q)), x)
    assert torch.equal(target.exp(x, torch.full_like(x, 2 * math.pi)), x)


def test_two_states_are_the_ising_model() -> None:
    spins = Ising((3, 4), 0.4).field.random(6, generator())
    angles = -math.pi * (spins < 0).double()
    torch.testing.assert_close(Clock((3, 4), 2, 0.4)(angles), Ising((3, 4), 0.4)(spins))
    assert Clock((4, 4), 6, 1.0).symmetries[2].implies(ClockRotations(3))
    assert Clock((4, 4), 6, 1.0).symmetries[2].implies(SignFlip())
    assert not ClockRotations(6).implies(GlobalRotations())


def test_clock_spins_do_not_move() -> None:
    with pytest.raises(ValueError, match="steps of 2π/q"):
        ClockSpins(5).exp(torch.zeros(2), torch.full((2,), 0.1))
    with pytest.raises(ValueError, match="off the manifold"):
        Clock((2,), 5, 1.0)(torch.tensor([[0.0, 0.1]]))
    with pytest.raises(AssertionError):  # the control of the law of the force: half of it
        laws.force_is_minus_gradient(HalfForce(Clock((4,), 5, 1.0)))


class HalfForce:
    """An action whose force is wrong."""

    def __init__(self, action: Action) -> None:
        self.action, self.field, self.energy = action, action.field, action.energy

    def force(self, x: Tensor) -> Tensor:
        return self.action.force(x) / 2


# ------------------------------------------------------------------------------------------- J₁–J₂


@pytest.mark.parametrize(("n", "simple"), [(2, XY((3, 4), 0.7)), (4, ON((3, 4), 4, 0.7))])
def test_nearest_neighbours_alone(n: int, simple: Action) -> None:
    x, general = simple.field.random(4, generator()), SpinModel((3, 4), n, 0.7)
    torch.testing.assert_close(general(x), simple(x))
    torch.testing.assert_close(general.force(x), simple.force(x))
    family = SpinFamily((3, 4), n)
    assert family.at(torch.tensor([0.7, 0.0], dtype=torch.float64)) == simple
    assert family.at(torch.tensor([0.7, 0.1], dtype=torch.float64)) == SpinModel((3, 4), n, 0.7, 0.1)
    assert SpinFamily((3, 4), n, ("diagonal",)).at(torch.tensor([0.1])) != SpinModel((3, 4), n, 0.7, 0.1)


def test_diagonals_by_hand() -> None:
    action = SpinModel((3, 4, 2), 3, 0.0, 1.0)
    s = action.field.random(3, generator())
    pairs = [(1, 2), (1, 3), (2, 3)]
    by_hand = sum((s * s.roll((1, sign), axes)).flatten(1).sum(1) for axes in pairs for sign in (1, -1))
    torch.testing.assert_close(action(s), -by_hand)


def test_ordered_fields() -> None:
    for n in (2, 3):
        action = SpinModel((4, 4), n, 0.5, 0.25)
        up = torch.zeros(1, *action.field.event_shape, dtype=torch.float64)
        if n == 3:
            up[..., 0] = 1
        assert action(up).item() == pytest.approx(-16 * (2 * 0.5 + 2 * 0.25))
        assert action.force(up).abs().max() < 1e-15


@pytest.mark.parametrize("dimension", [1, 2, 3, 200, 1000])
def test_normalisation_of_a_mixture_at_every_concentration(dimension: int) -> None:
    """log Z = log |Sᴰ| + κ²/2n - κ⁴/4n²(n + 2) + …, n = D + 1, and no step where the formulas change."""
    centre, n = (1.0, *[0.0] * dimension), dimension + 1
    area = math.log(2) + n / 2 * math.log(math.pi) - math.lgamma(n / 2)
    for kappa in (0.0, 1e-12, 1e-3, 0.01, 0.1):
        expected = area + kappa**2 / (2 * n) - kappa**4 / (4 * n * n * (n + 2))
        assert SphereMixture(centre, dimension, kappa).log_z() == pytest.approx(expected, rel=1e-13, abs=1e-7)
    edge = 1 + (dimension - 1) / 2
    below, above = (SphereMixture(centre, dimension, edge * (1 + step)).log_z() for step in (-1e-9, 1e-9))
    assert 0 <= above - below < 1e-8 * edge + 1e-10 * abs(area)
    assert math.isfinite(SphereMixture(centre, dimension, 1e6).log_z())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Clock((4, 4), 1, 1.0), "q >= 2"),
        (lambda: Clock((4, 4), 2.5, 1.0), "whole number"),
        (lambda: Clock((4, 4), 3, math.nan), "finite beta"),
        (lambda: Clock((4, 0), 3, 1.0), "1 to 4 extents"),
        (lambda: SpinModel((4, 4), 1, 1.0), "n >= 2"),
        (lambda: SpinModel((4,), 2, 1.0, 0.5), "two or more extents"),
        (lambda: SpinModel((4, 4), 2, math.inf), "finite nearest"),
        (lambda: SpinFamily((4, 4), 1), "n >= 2"),
        (lambda: SpinFamily((4,)), "two or more extents"),
        (lambda: SpinFamily((4, 4), 2, ("nearest", "sextic")), "names out of"),
        (lambda: SpinFamily((4, 4)).at(torch.tensor([math.nan, 0.0])), "finite couplings"),
    ],
)
def test_wrong_arguments(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()


def test_spaces() -> None:
    assert SpinFamily((4, 4)).field.target == Circle()
    assert SpinFamily((4, 4), 3).field.target == Sphere(2)
