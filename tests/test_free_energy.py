"""Free energies from one side, from both, and along a path, against closed forms and pymbar."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flows.bases import GaussianField
from flows.bijection import Inverse
from flows.free_energy import ThermodynamicIntegration, bar, bounds, difference, log_z, work
from flows.layers.fourier import FourierScaling
from flows.sampling.hmc import HMC
from flows.sampling.kernel import run
from flows.sampling.reweighting import reweight
from lattices.exact import free_field_log_z, phi4_moments
from lattices.lattice import Lattice
from lattices.theories.free_field import FreeField
from lattices.theories.phi4 import Phi4

LIGHT, HEAVY = FreeField((4, 4), 0.6), FreeField((4, 4), 1.0)
EXACT = free_field_log_z((4, 4), 0.6) - free_field_log_z((4, 4), 1.0)  # F_heavy - F_light


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def samples(action: FreeField, n: int, seed: int = 1) -> Tensor:
    return GaussianField.free(Lattice(action.extents), action.mass_squared).sample(n, generator=generator(seed))


def log_normal(n_q: int, n_p: int, spread: float = 1.2, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Log-weights of a Gaussian pair, with log Z = 0.7: the tilted samples have mean + σ² at the same spread."""
    draws = torch.randn(n_q + n_p, generator=generator(seed), dtype=torch.float64) * spread
    return 0.7 - spread**2 / 2 + draws[:n_q], 0.7 + spread**2 / 2 + draws[n_q:]


def markov_chains(action: Phi4, n_chains: int, n_steps: int) -> Tensor:  # -> (n_chains, n_steps, *extents)
    kernel = HMC(action, 0.25, 4)
    _, state = kernel.adapt(kernel.init(0.3 * action.field.random(n_chains, generator())), 50, generator(2))
    return run(kernel, state, n_steps, generator(3), lambda x: {"x": x}).measured["x"]


def test_bar_is_exact_for_log_normal_weights_of_unequal_numbers() -> None:
    for n_q, n_p in ((4000, 4000), (500, 20000), (20000, 500)):
        found = bar(*log_normal(n_q, n_p))
        assert found.error < 0.1
        assert abs(found.z_score(0.7)) < 4
        assert found.n == n_q + n_p


def test_bar_error_is_the_spread_of_repetitions() -> None:
    repeated = [bar(*log_normal(200, 400, seed=seed)) for seed in range(200)]
    values = torch.tensor([estimate.value for estimate in repeated])
    quoted = sum(estimate.error for estimate in repeated) / len(repeated)
    assert abs(values.std().item() / quoted - 1) < 4 / math.sqrt(2 * len(repeated))


def test_bar_beats_both_sides() -> None:
    q, p = log_normal(5000, 5000)
    assert bar(q, p).error < min(log_z(q).error, log_z(-p).error)


def test_bar_equals_pymbar() -> None:
    other_estimators = pytest.importorskip("pymbar.other_estimators")
    q, p = log_normal(3000, 1000)
    reference = other_estimators.bar(
        -q.numpy(), p.numpy(), method="self-consistent-iteration", relative_tolerance=1e-13
    )
    found = bar(q, p)
    assert abs(found.value + reference["Delta_f"]) < 1e-8
    assert abs(found.error / reference["dDelta_f"] - 1) < 0.02


def test_bounds_enclose_log_z() -> None:
    lower, upper = bounds(*log_normal(5000, 5000))
    assert abs(lower.z_score(0.7 - 0.72)) < 4
    assert abs(upper.z_score(0.7 + 0.72)) < 4
    assert lower.value < log_z(log_normal(5000, 5000)[0]).value < upper.value


def test_phi4_from_both_sides() -> None:
    """ELBO ≤ log Z ≤ EUBO, and importance sampling and BAR agree with the exact log Z, with chains of the target."""
    action, exact = Phi4((2, 2), -4.0, 8.0), phi4_moments((2, 2), -4.0, 8.0).log_z
    flow = GaussianField.of(action)
    log_weights_q = reweight(flow, action, 8000, generator()).log_weights
    chains = markov_chains(action, 100, 80)
    log_weights_p = (-action(chains.flatten(0, 1)) - flow.log_prob(chains.flatten(0, 1))).reshape(100, 80)
    one, both, (lower, upper) = (
        log_z(log_weights_q),
        bar(log_weights_q, log_weights_p),
        bounds(log_weights_q, log_weights_p),
    )
    assert abs(one.z_score(exact)) < 4
    assert abs(both.z_score(exact)) < 4
    assert both.error < one.error < 0.05
    assert lower.value + 4 * lower.error < exact < upper.value - 4 * upper.error
    with pytest.raises(AssertionError):  # samples of another target are noticed
        assert abs(bar(log_weights_q, 0.5 * log_weights_p).z_score(exact)) < 4


def test_difference_of_free_fields_straight() -> None:
    forward, reverse = work(samples(LIGHT, 8000), LIGHT, HEAVY), work(samples(HEAVY, 8000), HEAVY, LIGHT)
    for found in (difference(forward), difference(forward, reverse)):
        assert found.error < 0.05
        assert abs(found.z_score(EXACT)) < 4
    assert forward.mean() > EXACT > -reverse.mean()


def test_difference_of_free_fields_through_the_perfect_map() -> None:
    """Rescaling every Fourier mode maps one free field onto the other: all work is ΔF."""
    layer = FourierScaling(LIGHT.field)
    ratio = (HEAVY.gaussian_spectrum() / LIGHT.gaussian_spectrum()).log() / 2
    with torch.no_grad():
        layer.log_scale.index_copy_(0, layer.orbits.flatten(), ratio.flatten())
    forward = work(samples(LIGHT, 50), LIGHT, HEAVY, layer)
    reverse = work(samples(HEAVY, 50), HEAVY, LIGHT, Inverse(layer))
    assert torch.allclose(forward, torch.full_like(forward, EXACT), atol=1e-10)
    assert torch.allclose(reverse, -forward, atol=1e-10)
    assert difference(forward, reverse).value == pytest.approx(EXACT, abs=1e-10)


def test_one_side_of_chains_knows_their_autocorrelation() -> None:
    independent = log_normal(20000, 2)[0].reshape(10, 2000)
    slow = independent.repeat_interleave(8, 1)
    assert log_z(slow).error > 2 * log_z(slow.flatten()).error
    assert log_z(independent).error == pytest.approx(log_z(independent.flatten()).error, rel=0.2)
    assert abs(log_z(independent).z_score(0.7)) < 4


def test_thermodynamic_integration() -> None:
    action, start = Phi4((2, 2), -4.0, 8.0), FreeField((2, 2), 2.0)
    method = ThermodynamicIntegration(start, action, lambda a: HMC(a, 0.2, 4), n_nodes=6, n_steps=40, n_warmup=25)
    found = method.estimate(samples(start, 200), generator())
    exact = free_field_log_z((2, 2), 2.0) - phi4_moments((2, 2), -4.0, 8.0).log_z
    assert found.error < 0.05
    assert abs(found.z_score(exact)) < 4


def bad_calls() -> dict[str, Callable[[], object]]:
    x, small = samples(LIGHT, 3), FreeField((2, 2), 1.0)
    weights, layer = torch.zeros(5, dtype=torch.float64), FourierScaling(small.field)
    nothing = torch.full((5,), math.nan, dtype=torch.float64)
    return {
        "one weight": lambda: log_z(weights[:1]),
        "NaN weights": lambda: log_z(nothing),
        "NaN on one side": lambda: bar(weights, nothing),
        "one sample on one side": lambda: bar(weights, weights[:1]),
        "no axis": lambda: bounds(weights[0], weights),
        "different lattices": lambda: work(x, LIGHT, small),
        "map elsewhere": lambda: work(x, LIGHT, HEAVY, layer),
        "wrong shape": lambda: work(x[0], LIGHT, HEAVY),
        "no nodes": lambda: ThermodynamicIntegration(LIGHT, HEAVY, lambda a: HMC(a, 0.2, 4), n_nodes=0),
        "one step": lambda: ThermodynamicIntegration(LIGHT, HEAVY, lambda a: HMC(a, 0.2, 4), n_steps=1),
        "negative warm-up": lambda: ThermodynamicIntegration(LIGHT, HEAVY, lambda a: HMC(a, 0.2, 4), n_warmup=-1),
        "other space": lambda: ThermodynamicIntegration(LIGHT, small, lambda a: HMC(a, 0.2, 4)),
    }


@pytest.mark.parametrize("name", bad_calls())
def test_bad_input_is_refused_with_advice(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*got .*: "):
        bad_calls()[name]()
