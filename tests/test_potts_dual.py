"""The Potts model as a vector field: its symmetry, q = 2 against Ising, everything else against enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from flows.sampling.hmc import HMC
from flows.sampling.kernel import run
from lattices import exact
from lattices.fields import FieldSpace, Real
from lattices.invariance import ColourPermutations, Colours, SignFlip, Translations, shared_symmetries, simplex
from lattices.lattice import Lattice
from lattices.statistics import chain_mean, effective_sample_size, log_mean_exp, reweighted_mean
from lattices.theories.ising_dual import IsingDual, IsingDualFamily
from lattices.theories.potts_dual import PottsDual, PottsDualFamily
from tests.laws.fields import generator

K_CRITICAL = exact.potts_critical_coupling(3)


def vectors(action: PottsDual, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Fields of the Gaussian approximation, and log(e^{-S} / q)."""
    spectrum = action.gaussian_spectrum()
    noise = action.field.random(n, generator(seed))
    axes = tuple(range(1, noise.ndim - 1))
    x = torch.fft.ifftn(spectrum[..., None].sqrt() * torch.fft.fftn(noise, dim=axes), dim=axes).real
    log_det = (action.q - 1) / 2 * (2 * math.pi * spectrum).log().sum()
    return x, -action(x) + 0.5 * noise.square().flatten(1).sum(1) + log_det


# ------------------------------------------------------------------------------------------- the simplex


@pytest.mark.parametrize("q", [2, 3, 4, 7])
def test_simplex_is_regular(q: int) -> None:
    e, one = simplex(q), torch.eye(q, dtype=torch.float64)
    torch.testing.assert_close(e @ e.mT, (q * one - 1) / (q - 1))
    torch.testing.assert_close(e.mT @ e, q / (q - 1) * one[1:, 1:])
    torch.testing.assert_close(e.sum(0), torch.zeros(q - 1, dtype=torch.float64))


def test_colours_permute_the_corners_and_represent_the_group() -> None:
    field = FieldSpace(Lattice((3,)), Real(3))
    corners = simplex(4).reshape(4, 1, 3).expand(4, 3, 3)
    x = field.random(2, generator())
    for pi in permutations(range(4)):
        torch.testing.assert_close(field.act(Colours(pi), corners), corners[list(pi)])
        for rho in [(1, 0, 2, 3), (1, 2, 3, 0)]:
            product = tuple(pi[rho[a]] for a in range(4))
            torch.testing.assert_close(
                field.act(Colours(pi), field.act(Colours(rho), x)), field.act(Colours(product), x)
            )


def test_generators_generate() -> None:
    generators = [g.permutation for g in ColourPermutations(4).generators(FieldSpace(Lattice((2,)), Real(3)))]
    found = {(0, 1, 2, 3)}
    while new := {tuple(g[a] for a in p) for g in generators for p in found} - found:
        found |= new
    assert len(found) == 24


def test_two_colours_are_a_sign() -> None:
    two, sign, three = ColourPermutations(2), SignFlip(), ColourPermutations(3)
    assert two.implies(sign)
    assert sign.implies(two)
    assert not three.implies(sign)
    assert not sign.implies(three)
    assert shared_symmetries((Translations(), two), (sign,)) == (two, sign)
    assert shared_symmetries((Translations(), three), (three, sign)) == (three,)
    space = FieldSpace(Lattice((4,)), Real(1))
    x = space.random(3, generator())
    assert all(torch.equal(space.act(g, x), -x) for g in two.generators(space))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: PottsDual((4, 4), 1.0, q=1), "q >= 2"),
        (lambda: PottsDual((4, 4), 1.0, q=2.5), "whole number"),  # type: ignore[arg-type]
        (lambda: PottsDual((4, 4), math.nan), "finite coupling"),
        (lambda: PottsDual((4, 4), 1.0, margin=0.0), "margin > 0"),
        (lambda: PottsDual((4,), 1.0, diagonal=0.1), "two or more extents"),
        (lambda: PottsDualFamily((4, 4), 3, ("field",)), "names out of"),
        (lambda: PottsDualFamily((4, 4), 1), "q >= 2"),
        (lambda: PottsDualFamily((4, 4), alpha=2.0).at(torch.tensor([1.0])), r"positive definite.*\.covering"),
        (lambda: ColourPermutations(3).generators(FieldSpace(Lattice((4,)))), r"fields in R\^2"),
    ],
)
def test_wrong_arguments(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()


# ------------------------------------------------------------------------------------------- against exact results


@pytest.mark.parametrize("extents", [(4, 4), (3, 2), (2, 3, 4)])
def test_two_states_are_the_ising_model(extents: tuple[int, ...]) -> None:
    ising = IsingDual(extents, 0.21, diagonal=0.04)
    potts = PottsDual(extents, 0.42, q=2, diagonal=0.08)
    x, d, volume = ising.field.random(5, generator()), len(extents), math.prod(extents)
    torch.testing.assert_close(potts(x[..., None]), ising(x))
    torch.testing.assert_close(potts.force(x[..., None])[..., 0], ising.force(x))
    torch.testing.assert_close(potts.gaussian_spectrum(), ising.gaussian_spectrum())
    constant = (0.21 * d + 0.04 * d * (d - 1)) * volume  # δ = (1 + ss)/2
    assert potts.log_z_potts(0.3) == pytest.approx(ising.log_z_ising(0.3) + constant, abs=1e-10)
    families = PottsDualFamily((4, 4), 2, alpha=2.5), IsingDualFamily((4, 4), ("nearest",), alpha=2.5)
    x, K = (
        torch.randn(3, 4, 4, generator=generator(), dtype=torch.float64),
        torch.tensor([[0.1], [0.2], [0.4]]).double(),
    )
    torch.testing.assert_close(families[0].energy(x[..., None], 2 * K), families[1].energy(x, K))


@pytest.mark.parametrize("margin", [0.4, 1.0])
def test_partition_sum_of_a_loop_by_quadrature(margin: float) -> None:
    dual, points = PottsDual((1,), 0.3, margin=margin), torch.linspace(-12, 12, 300, dtype=torch.float64)
    x = torch.cartesian_prod(points, points).reshape(-1, 1, 2)
    log_z = torch.logsumexp(-dual(x), 0).item() + 2 * math.log(24 / 299)
    assert dual.log_z_potts(log_z) == pytest.approx(math.log(3) + 0.3, abs=1e-10)


@pytest.mark.parametrize(
    ("extents", "coupling", "q", "diagonal"),
    [((2, 2), 0.4, 3, 0.0), ((3, 3), 0.5, 3, 0.1), ((6,), 1.0, 4, 0.0), ((5,), -0.5, 3, 0.0), ((2, 3), 0.3, 5, 0.05)],
)
def test_dual_gives_the_states_of_the_potts_model(
    extents: tuple[int, ...], coupling: float, q: int, diagonal: float
) -> None:
    dual = PottsDual(extents, coupling, q, diagonal=diagonal)
    oracle = exact.potts_enumeration(extents, coupling, q, diagonal)
    x, weights = vectors(dual, 20_000)
    states = dual.sample_spins(x, generator(1))
    assert states.shape == x.shape[:-1]
    assert effective_sample_size(weights).value > 0.2
    assert abs(log_mean_exp(weights).z_score(oracle.log_z - dual.log_z_potts(0.0))) < 4
    bonds = sum((states == states.roll(1, axis)).double().flatten(1).mean(1) for axis in range(1, states.ndim))
    assert abs(reweighted_mean(-bonds, weights).z_score(oracle.energy)) < 4
    magnetisation = simplex(q)[states].flatten(1, -2).mean(1).square().sum(-1)
    assert abs(reweighted_mean(magnetisation, weights).z_score(oracle.magnetisation_squared)) < 4


def test_enumeration_is_the_closed_form_of_a_ring() -> None:
    K, q, n = 0.7, 3, 7
    ring = math.log((math.exp(K) + q - 1) ** n + (q - 1) * (math.exp(K) - 1) ** n)
    assert exact.potts_enumeration((n,), K, q).log_z == pytest.approx(ring, abs=1e-12)


def test_family_log_z_is_that_of_its_members() -> None:
    family = PottsDualFamily.covering((4, 3), {"nearest": 0.8, "diagonal": 0.2}, q=4)
    J = torch.tensor([[0.7, 0.1], [0.2, 0.2]], dtype=torch.float64)
    alone = torch.tensor([family.at(row).log_z_potts(1.5) for row in J], dtype=torch.float64)
    torch.testing.assert_close(family.log_z_potts(torch.tensor([1.5, 1.5], dtype=torch.float64), J), alone)


def gaussian_bound(action: PottsDual, spectrum: Tensor) -> float:
    """⟨S⟩ + ⟨log q⟩ per component in the Gaussian with this spectrum, q = 3, up to a constant: at least -log Z."""
    points = torch.linspace(-9, 9, 301, dtype=torch.float64)
    g = torch.cartesian_prod(points, points)
    weights = (-g.square().sum(1) / 2).softmax(0)
    log_states = weights @ (spectrum.mean().sqrt() * g @ simplex(3).mT).logsumexp(-1)
    return float((0.5 * spectrum / action._spectrum() - 0.5 * spectrum.log()).sum() - spectrum.numel() * log_states / 2)


@pytest.mark.parametrize("coupling", [-0.4, K_CRITICAL, 1.4])
def test_gaussian_spectrum_is_the_best(coupling: float) -> None:
    action = PottsDual((6, 6), coupling)
    spectrum = action.gaussian_spectrum()
    best = gaussian_bound(action, spectrum)
    for direction in (torch.ones(6, 6, dtype=torch.float64), Lattice((6, 6)).laplacian_spectrum().cos()):
        for step in (-1e-2, 1e-2):
            assert gaussian_bound(action, spectrum * (1 + step * direction)) > best


def test_many_states_have_a_spectrum() -> None:
    spectrum = PottsDual((8, 8), 1.6, q=10).gaussian_spectrum()
    assert (spectrum > 0).all()
    assert spectrum.isfinite().all()


def test_hmc_samples_the_vector_field() -> None:
    dual, oracle = PottsDual((3, 3), 0.6, diagonal=0.1), exact.potts_enumeration((3, 3), 0.6, 3, 0.1)
    hmc, coins = HMC(dual, step_size=0.25, n_steps=4), generator(3)

    def measure(x: Tensor) -> dict[str, Tensor]:
        states = dual.sample_spins(x, coins)
        bonds = sum((states == states.roll(1, axis)).double().mean((1, 2)) for axis in (1, 2))
        return {"energy": -bonds, "virial": -(x * dual.force(x)).flatten(1).sum(1) / 18}

    hmc, state = hmc.adapt(hmc.init(dual.field.random(64, generator())), 50, generator(1))
    history = run(hmc, state, 200, generator(2), measure)
    assert history.accepted.mean() > 0.6
    assert abs(chain_mean(history.measured["energy"]).z_score(oracle.energy)) < 4
    assert abs(chain_mean(history.measured["virial"]).z_score(1.0)) < 4
