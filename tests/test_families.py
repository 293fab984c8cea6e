"""Families by law (found by discovery), sections of φ⁴ in its conventions, and the duals against enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from flows.updates.update import Problem
from lattices import exact
from lattices.action import Action, ActionFamily, Family, named_couplings
from lattices.fields import FieldSpace
from lattices.invariance import SignFlip
from lattices.lattice import Lattice
from lattices.statistics import effective_sample_size, log_mean_exp, reweighted_mean
from lattices.theories.bonds import BondMatrix, bond_spectrum
from lattices.theories.families import Section, phi4_form_a, phi4_form_d
from lattices.theories.ising_dual import IsingDual, IsingDualFamily
from lattices.theories.phi4 import Phi4, Phi4Family
from lattices.theories.scalar import Scalar
from tests.discovery import examples
from tests.laws import actions as laws
from tests.laws.fields import generator
from tests.test_theories import form_d, log_weights, log_z_on_grid, square


@pytest.mark.parametrize("family", examples(Family))
@pytest.mark.parametrize("law", laws.FAMILY_LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[[Family], None], family: Family) -> None:
    law(family)


@pytest.mark.parametrize("family", examples(ActionFamily))
def test_linear_families_are_linear(family: ActionFamily) -> None:
    laws.linear_in_couplings(family)


@pytest.mark.parametrize("family", examples(Family))
@pytest.mark.parametrize("law", laws.ACTION_LAWS, ids=lambda law: law.__name__)
def test_members_keep_the_laws_of_actions(law: Callable[[Action], None], family: Family) -> None:
    law(family.at(laws.couplings_of(family)[0]))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: IsingDualFamily((4, 4), ("nearest", "sextic")), "names out of"),
        (lambda: IsingDualFamily((4, 4), ("nearest", "nearest")), "different names"),
        (lambda: IsingDualFamily((4,), ("nearest", "diagonal")), "two or more extents"),
        (lambda: IsingDualFamily((4, 4), alpha=0.0), "alpha > 0"),
        (lambda: IsingDualFamily((4, 4), alpha=math.nan), "finite alpha"),
        (lambda: IsingDualFamily((4, 4), alpha=2.0).at(torch.tensor([0.6, 0.0])), r"eigenvalue -0.4.*\.covering"),
        (lambda: IsingDualFamily((4, 4)).check(torch.tensor([[0.1, 0.0], [0.1, 0.9]])), "positive definite"),
        (lambda: phi4_form_d((4, 4), ("octic",)), "further couplings out of"),
        (lambda: phi4_form_d((4,), ("diagonal",)), "two or more extents"),
        (lambda: phi4_form_d((4, 4)).at(torch.tensor([0.6, -0.1])), "bounded from below"),
        (lambda: phi4_form_d((4, 4)).check(torch.tensor([[0.6, 1.0], [0.6, -0.1]])), "bounded from below"),
        (lambda: Section(Phi4Family((4, 4)), ("a",), (0.0, 0.0), ((1.0,), (1.0,))), "offset of 3 numbers"),
        (lambda: Section(Phi4Family((4, 4)), ("a",), (0.0,) * 3, ((1.0, 2.0),) * 3), "rows of 1"),
        (lambda: Section(Phi4Family((4, 4)), ("a",), (math.nan,) * 3, ((1.0,),) * 3), "finite numbers"),
    ],
)
def test_wrong_arguments(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()


# ------------------------------------------------------------------------------------------- φ⁴ in two couplings


@pytest.mark.parametrize("extents", [(5,), (4, 3), (2, 3, 2)])
def test_form_d_is_that_of_the_literature(extents: tuple[int, ...]) -> None:
    section, x = phi4_form_d(extents), torch.randn(4, *extents, generator=generator(), dtype=torch.float64)
    beta, quartic = 0.68, 0.9
    hopping = sum(x * x.roll(-1, axis) for axis in range(1, x.ndim))
    by_hand = (-beta * hopping + x**2 + quartic * (x**2 - 1) ** 2).flatten(1).sum(1) - quartic * x[0].numel()
    J = torch.tensor([beta, quartic], dtype=torch.float64)
    torch.testing.assert_close(section.energy(x, J), by_hand)
    torch.testing.assert_close(section.energy(x, J), form_d(x, beta / 2, quartic))
    action = Phi4.from_form_d(extents, beta / 2, quartic)
    torch.testing.assert_close(section.energy(x, J), action(math.sqrt(beta / 2) * x))


def test_form_d_with_more_couplings() -> None:
    section = phi4_form_d((4, 3), ("sextic", "diagonal", "source"))
    assert section.names == ("beta", "quartic", "sextic", "diagonal", "source")
    x, J = torch.randn(4, 4, 3, generator=generator(), dtype=torch.float64), torch.tensor([0.6, 0.9, 0.2, -0.1, 0.3])
    far = sum(x * x.roll((-1, -sign), (1, 2)) for sign in (1, -1))
    more = (0.2 * x**6 + 0.1 * far + 0.3 * x).flatten(1).sum(1)
    torch.testing.assert_close(section.energy(x, J), form_d(x, 0.3, 0.9) + more, rtol=1e-6, atol=1e-6)


def test_form_a_is_phi4_and_meets_form_d() -> None:
    x, beta = torch.randn(4, 4, 4, generator=generator(), dtype=torch.float64), 0.72
    a = torch.tensor([-4.0, 2 / beta**2], dtype=torch.float64)
    d = torch.tensor([beta, 0.5], dtype=torch.float64)
    torch.testing.assert_close(phi4_form_a((4, 4)).energy(x, a), Phi4((4, 4), *a.tolist())(x))
    scaled = phi4_form_a((4, 4)).energy(math.sqrt(beta / 2) * x, a)
    torch.testing.assert_close(phi4_form_d((4, 4)).energy(x, d), scaled)
    assert phi4_form_a((4, 4)).at(a) == Scalar((4, 4), 1.0, -4.0, a[1].item())


def test_sections_stack() -> None:
    line = Section(phi4_form_d((4, 4)), ("beta",), (0.0, 1.0), ((1.0,), (0.0,)))
    x, beta = torch.randn(3, 4, 4, generator=generator(), dtype=torch.float64), torch.tensor([[0.5], [0.6], [0.7]])
    expected = torch.cat([form_d(one, b / 2, 1.0) for one, b in zip(x.split(1), beta[:, 0].tolist())])
    torch.testing.assert_close(line.energy(x, beta), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(line.embed(beta), torch.cat([beta, torch.ones(3, 1)], 1))


def test_problems_take_any_family() -> None:
    family, x = phi4_form_d((4, 4)), torch.randn(3, 4, 4, generator=generator(), dtype=torch.float64)
    J = laws.couplings_of(family, 3)
    problem = Problem(None, family)  # type: ignore[arg-type]
    assert torch.equal(problem.energy(x, J), family.energy(x, J))
    with pytest.raises(ValueError, match="expected couplings for a Family"):
        problem.energy(x)


# ------------------------------------------------------------------------------------------- the dual of Ising models


@pytest.mark.parametrize("name", ["nearest", "diagonal"])
@pytest.mark.parametrize("extents", [(4, 4), (3, 2), (2, 4, 3)])
def test_bond_spectrum_is_a_sum_of_cosines(name: str, extents: tuple[int, ...]) -> None:
    k = 2 * math.pi * Lattice(extents).coordinates().double() / torch.tensor(extents, dtype=torch.float64)
    cosines = 2 * k.cos()
    by_hand = cosines.sum(1) if name == "nearest" else (cosines.sum(1) ** 2 - cosines.square().sum(1)) / 2
    torch.testing.assert_close(bond_spectrum(extents, name).flatten(), by_hand, atol=1e-13, rtol=0)


def test_quadratic_form_is_that_of_the_matrix() -> None:
    J = torch.tensor([[0.3, -0.1], [0.2, 0.1]], dtype=torch.float64)
    bonds = BondMatrix((3, 4), ("nearest", "diagonal"), 2.0)
    sites = torch.eye(12, dtype=torch.float64).reshape(12, 3, 4)
    x = torch.randn(2, 3, 4, 2, generator=generator(), dtype=torch.float64)
    for row, spectrum, one in zip(J, bonds.spectrum(J), x):
        matrix = torch.fft.ifft2(spectrum * torch.fft.fft2(sites)).real.reshape(12, 12)
        flat = one.reshape(12, 2)
        expected = 0.5 * (flat * torch.linalg.solve(matrix, flat)).sum()
        torch.testing.assert_close(bonds.quadratic(one[None], row)[0], expected)


@pytest.mark.parametrize(("extents", "couplings"), [((2,), (0.3, 0.4)), ((2,), (-0.2, -0.3)), ((1,), (0.2, 0.7))])
def test_dual_in_a_field_by_quadrature(extents: tuple[int, ...], couplings: tuple[float, ...]) -> None:
    family, J = IsingDualFamily(extents, ("nearest", "field"), 1.4), torch.tensor(couplings, dtype=torch.float64)
    log_z = log_z_on_grid(lambda x: family.energy(x, J), extents, n=400, reach=20)
    enumerated = exact.ising_enumeration(extents, couplings[0], uniform_field=couplings[1]).log_z
    assert family.log_z_ising(torch.tensor(log_z), J).item() == pytest.approx(enumerated, abs=1e-6)
    assert family.at(J).log_z_ising(log_z) == pytest.approx(enumerated, abs=1e-10)


@pytest.mark.parametrize(
    ("extents", "couplings"), [((3, 3), (0.15, 0.08, 0.1)), ((4, 4), (0.2, -0.1, 0.0)), ((2, 3, 2), (0.05, 0.03, -0.2))]
)
def test_dual_gives_the_spins(extents: tuple[int, ...], couplings: tuple[float, float, float]) -> None:
    names = ("nearest", "diagonal", "field")
    dual = IsingDualFamily.covering(extents, dict(zip(names, couplings))).at(torch.tensor(couplings).double())
    oracle = exact.ising_enumeration(extents, *couplings)
    x, weights = log_weights(dual, 20_000)
    spins = dual.sample_spins(x, generator(1))
    assert effective_sample_size(weights).value > 0.2
    assert abs(log_mean_exp(weights).z_score(oracle.log_z - dual.log_z_ising(0.0))) < 4
    bonds = sum((spins * spins.roll(1, axis)).flatten(1).mean(1) for axis in range(1, spins.ndim))
    assert abs(reweighted_mean(-bonds, weights).z_score(oracle.energy)) < 4
    square_magnetisation = spins.flatten(1).mean(1).square()
    assert abs(reweighted_mean(square_magnetisation, weights).z_score(oracle.magnetisation_squared)) < 4


def test_enumeration_with_more_couplings() -> None:
    signs = [torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 12
    s = torch.cartesian_prod(*signs).reshape(-1, 4, 3)
    near = sum(s * s.roll(1, axis) for axis in (1, 2))
    far = sum(s * s.roll((1, sign), (1, 2)) for sign in (1, -1))
    log_weights = (0.3 * near - 0.2 * far + 0.15 * s).sum((1, 2))
    oracle = exact.ising_enumeration((4, 3), 0.3, -0.2, 0.15)
    assert oracle.log_z == pytest.approx(torch.logsumexp(log_weights, 0).item(), abs=1e-12)
    mean = (log_weights.softmax(0) * s.mean((1, 2)) ** 2).sum()
    assert oracle.magnetisation_squared == pytest.approx(mean.item(), abs=1e-12)


@pytest.mark.parametrize("extents", [(4, 4), (3, 5), (2, 4, 4), (4, 4, 2, 2)])
def test_covering_covers(extents: tuple[int, ...]) -> None:
    largest = {"nearest": 0.4, "diagonal": 0.3, "field": 1.0}
    family = IsingDualFamily.covering(extents, largest, margin=0.2)
    ends = [torch.tensor([0.0, value], dtype=torch.float64) for value in largest.values()]
    smallest = BondMatrix(extents, family.names, family.alpha).smallest(family.check(torch.cartesian_prod(*ends)))
    even = all(n % 2 == 0 for n in extents)
    assert smallest == pytest.approx(0.2) if even else smallest > 0.2
    assert family.on(tuple(2 * n for n in extents)).alpha == family.alpha


def test_family_at_one_coupling_is_the_action() -> None:
    plain = IsingDual((4, 4), 0.44)
    family = IsingDualFamily.covering((4, 4), {"nearest": 0.44})
    assert family.at(torch.tensor([0.44], dtype=torch.float64)).margin == pytest.approx(plain.margin)
    x = plain.field.random(3, generator())
    torch.testing.assert_close(family.energy(x, torch.tensor([0.44], dtype=torch.float64)), plain(x))
    assert SignFlip() not in IsingDual((4, 4), 0.44, uniform_field=0.1).symmetries


# ------------------------------------------------------------------------------------------- what the laws reject


@dataclass(frozen=True)
class Crooked(ActionFamily):
    """Free fields, a family with something wrong."""

    extents: tuple[int, ...] = (4, 4)
    names: tuple[str, ...] = ("mass_squared",)
    fault: str = ""

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents))

    def operators(self, x: Tensor) -> Tensor:
        values = square(x)[:, None]
        return values / values.shape[0] if self.fault == "batch" else values

    def energy(self, x: Tensor, couplings: Tensor) -> Tensor:
        if self.fault == "numbers":
            return square(x) * couplings.detach()[..., 0].to(x)
        if self.fault == "dtype":
            return square(x) * couplings.double()[..., 0]
        if self.fault == "curved":
            return square(x) * couplings.to(x)[..., 0] ** 2
        return super().energy(x, couplings) / (self.field.lattice.volume if self.fault == "intensive" else 1)

    def at(self, couplings: Tensor) -> Action:
        return Scalar(self.extents, 1.0 if self.fault == "at" else 0.0, **named_couplings(self.names, couplings))

    def on(self, lattice: Lattice | tuple[int, ...]) -> Crooked:
        return replace(super().on(lattice), fault="") if self.fault == "journey" else super().on(lattice)

    def check(self, couplings: Tensor) -> Tensor:
        return couplings if self.fault == "unchecked" else super().check(couplings)

    @classmethod
    def examples(cls) -> Iterator[Crooked]:
        yield cls()


@pytest.mark.parametrize(
    ("law", "fault"),
    [
        (laws.energy_at_couplings, "at"),
        (laws.energy_at_couplings, "dtype"),
        (laws.gradients_of_families, "numbers"),
        (laws.gradients_of_families, "at"),
        (laws.lives_on_other_lattices, "intensive"),
        (laws.lives_on_other_lattices, "journey"),
        (laws.checks_couplings, "unchecked"),
        (laws.linear_in_couplings, "curved"),
        (laws.energy_at_couplings, "batch"),
    ],
)
def test_law_rejects(law: Callable[[Family], None], fault: str) -> None:
    law(Crooked())
    with pytest.raises((AssertionError, RuntimeError)):
        law(Crooked(fault=fault))
