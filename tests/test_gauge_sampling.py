"""Markov chains of gauge theories: Hamiltonian dynamics on groups, against laws and exact plaquettes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from scipy.special import ive
from torch import Tensor

from flows.bases import White
from flows.bijection import Bijection
from flows.distribution import Transformed
from flows.layers.gauge_coupling import PlaquetteCoupling
from flows.layers.gauge_residual import ResidualCoupling
from flows.sampling.annealing import Annealing
from flows.sampling.choice import equilibrated, sampler_for
from flows.sampling.draws import su2_trace, von_mises
from flows.sampling.heatbath import HeatBath, parts
from flows.sampling.hmc import HMC
from flows.sampling.independence import IndependenceMetropolis
from flows.sampling.integrators import INTEGRATORS, Integrator, restored
from flows.sampling.kernel import Kernel, run
from flows.sampling.latent import Latent, PulledBack
from flows.sampling.nested import NestedHMC
from flows.sampling.reweighting import reweight_chains
from lattices.action import Action
from lattices.exact import gauge_torus_log_z, gauge_torus_plaquette
from lattices.link_partitions import link_parity, link_stripes
from lattices.statistics import Estimate, chain_mean, integrated_autocorrelation_time
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge
from lattices.wilson_loops import plaquette
from tests.laws import kernels as law
from tests.laws.kernels import generator

GROUPS: dict[str, Action] = {
    "U(1)": U1Gauge((4, 4), 2.0),
    "SU(2)": SUNGauge((3, 2), 2, 2.2),
    "SU(3)": SUNGauge((2, 2), 3, 5.0),
    "SU(4)": SUNGauge((2, 2), 4, 6.0),
}
_TRIES = 25
IMPROVED, PLAIN = SUNGauge((3, 3), 2, 2.0, rectangle=-1 / 12), SUNGauge((3, 3), 2, 2.0)
PARTS = {
    "SU(2) rectangles": (IMPROVED - PLAIN, PLAIN),
    "U(1) in two": (0.3 * U1Gauge((3, 3), 2.0), 0.7 * U1Gauge((3, 3), 2.0)),
    "U(1) in three": (0.2 * U1Gauge((3, 3), 2.0), 0.3 * U1Gauge((3, 3), 2.0), 0.5 * U1Gauge((3, 3), 2.0)),
}


@dataclass(frozen=True)
class WrongForce(Action):
    """An action whose force pulls the wrong way."""

    action: Action
    symmetries = ()

    @property
    def field(self):  # type: ignore[no-untyped-def]
        return self.action.field

    @property
    def broken(self):  # type: ignore[no-untyped-def]
        return self.action.broken

    def energy(self, x: Tensor) -> Tensor:
        return self.action.energy(x)

    def force(self, x: Tensor) -> Tensor:
        return -self.action.force(x)

    @classmethod
    def examples(cls):  # type: ignore[no-untyped-def]
        yield cls(GROUPS["U(1)"])


# ------------------------------------------------------------------------------------------- Hamiltonian dynamics


@pytest.mark.parametrize("method", INTEGRATORS)
@pytest.mark.parametrize("group", GROUPS)
def test_integrators_on_groups(group: str, method: str) -> None:
    law.reversible(GROUPS[group], INTEGRATORS[method])
    law.order(GROUPS[group], INTEGRATORS[method], 16 if method == "omf4" else 24)


@pytest.mark.parametrize(
    ("name", "method", "n_steps"),
    [
        ("SU(2) rectangles", "leapfrog", 8),
        ("U(1) in two", "omf2", 8),
        ("U(1) in two", "omf4", 12),
        ("U(1) in three", "leapfrog", 8),
    ],
)
def test_nested_integrators(name: str, method: str, n_steps: int) -> None:
    law.reversible(PARTS[name], INTEGRATORS[method])
    law.order(PARTS[name], INTEGRATORS[method], n_steps)


def test_negative_controls_of_integrators_on_groups() -> None:
    for action in (GROUPS["U(1)"], PARTS["U(1) in two"]):
        with pytest.raises(AssertionError, match="misses its start"):
            law.reversible(action, Integrator((0.6, 0.4), (1.0,), 2))
        with pytest.raises(AssertionError, match="order"):
            law.order(action, replace(INTEGRATORS["leapfrog"], order=4), 8)
    with pytest.raises(AssertionError, match="order"):
        law.order(WrongForce(GROUPS["SU(2)"]), INTEGRATORS["leapfrog"], 8)


def test_trajectories_stay_on_the_group() -> None:
    """Rounding moves products off SU(N); a step brings them back, and refuses what diverged."""
    action = SUNGauge((2, 2), 3, 5.0)
    x = action.field.random(4, generator())
    off = x + 1e-9 * torch.randn(x.shape, generator=generator(), dtype=x.dtype)
    assert off.sub(restored(action.field, off)).abs().max() < 1e-8
    assert action.field.target.distance_from(restored(action.field, off)).max() < 1e-15
    assert restored(action.field, 1.1 * x).isnan().all()
    kernel = HMC(action, 0.5, 10)
    history = run(kernel, kernel.init(x), 50, generator())
    assert action.field.target.distance_from(history.state.x).max() < 1e-14
    wild = HMC(action, 1e3, 2)
    state, info = wild.step(wild.init(x), generator())
    assert torch.equal(state.x, x)
    assert not info.accepted.any()


# ------------------------------------------------------------------------------------------- exact plaquettes


def order_of(action: Action) -> int:
    return action.n if isinstance(action, SUNGauge) else 1


def plaquette_of(kernel: Kernel, action: Action, n_chains: int, n_steps: int, n_warm_up: int = 30) -> Estimate:
    """⟨Re Tr P⟩/N of chains that start hot; at least two hundred effective samples."""
    state = kernel.init(action.field.random(n_chains, generator(7)))
    state = run(kernel, state, n_warm_up, generator(8)).state
    history = run(kernel, state, n_steps, generator(9), lambda x: {"plaquette": plaquette(action.field, x)})
    chains = history.measured["plaquette"]
    assert chains.numel() / (2 * integrated_autocorrelation_time(chains).value) > 200
    return chain_mean(chains)


def exact_plaquette(action: Action) -> float:
    return gauge_torus_plaquette(action.extents, order_of(action), action.beta)  # type: ignore[attr-defined]


def simulated() -> dict[str, Callable[[Action], Kernel]]:
    return {
        "HMC": lambda action: HMC(action, 0.2, 5, "omf2", jitter=0.2),
        "nested": lambda action: NestedHMC((0.3 * action, 0.7 * action), 0.3, (4, 2), jitter=0.2),
        "heat bath": lambda action: HeatBath(action, n_overrelaxation=0),  # type: ignore[arg-type]
        "overrelaxed": lambda action: HeatBath(action, n_overrelaxation=2),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("method", simulated())
@pytest.mark.parametrize("action", [U1Gauge((4, 4), 2.0), SUNGauge((3, 4), 2, 2.0), SUNGauge((2, 3), 3, 5.0)], ids=str)
def test_plaquettes_of_two_dimensions(action: Action, method: str) -> None:
    found = plaquette_of(simulated()[method](action), action, 32, 50)
    assert abs(found.z_score(exact_plaquette(action))) < law.LIMIT


def test_plaquettes_of_four_by_four_matrices() -> None:
    action = SUNGauge((2, 3), 4, 6.0)
    assert abs(plaquette_of(HeatBath(action, 1), action, 16, 40).z_score(exact_plaquette(action))) < law.LIMIT


@pytest.mark.parametrize("action", [U1Gauge((4, 4), 2.0), SUNGauge((3, 4), 2, 2.0)], ids=str)
def test_a_heat_bath_of_another_coupling_is_seen(action: U1Gauge | SUNGauge) -> None:
    wrong = replace(action, beta=1.15 * action.beta)
    found = plaquette_of(HeatBath(wrong, 1), action, 48, 50)
    assert abs(found.z_score(exact_plaquette(action))) > law.LIMIT
    assert abs(found.z_score(exact_plaquette(wrong))) < law.LIMIT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "exact"),
    [
        (U1Gauge((8, 8), 2.0), 0.697774658011),
        (SUNGauge((8, 8), 2, 2.0), 0.433127427),
        (SUNGauge((8, 8), 3, 5.0), 0.353954437),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", simulated())
def test_plaquettes_of_larger_tori(action: Action, exact: float, method: str) -> None:
    assert abs(plaquette_of(simulated()[method](action), action, 32, 200).z_score(exact)) < law.LIMIT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "published"),
    [
        (SUNGauge((8, 8, 8, 8), 2, 2.3), Estimate(0.60238, 0.00039, 1)),
        (SUNGauge((8, 8, 8, 8), 3, 6.0), Estimate(0.59379, 0.00024, 1)),
    ],
    ids=str,
)
def test_plaquettes_of_four_dimensions(action: SUNGauge, published: Estimate) -> None:
    """One cold chain, 150 steps of warm-up and as many measurements; 40 s and 90 s on one core."""
    kernel = HeatBath(action, n_overrelaxation=2)
    cold = torch.eye(action.n, dtype=torch.complex128).expand(1, *action.field.event_shape)
    state = run(kernel, kernel.init(cold), 150, generator()).state
    history = run(kernel, state, 150, generator(2), lambda x: {"plaquette": plaquette(action.field, x)})
    found = chain_mean(history.measured["plaquette"])
    assert found.error < 0.001
    assert abs(found.z_score(published)) < law.LIMIT


# ------------------------------------------------------------------------------------------- heat bath, draw by draw


@pytest.mark.parametrize("strength", [0.0, 1e-3, 0.5, 1.6, 1.8, 20.0])
def test_one_link_draws(strength: float) -> None:
    """⟨cos θ⟩ = I₁/I₀, ⟨cos 2θ⟩ = I₂/I₀; for SU(2) ⟨h⟩ = I₂/I₁, ⟨h²⟩ = 1 - 3 I₂ / α I₁."""
    n, alpha = 40000, torch.full((40000,), strength, dtype=torch.float64)
    theta, h = von_mises(alpha, generator()), su2_trace(alpha, generator(2))
    i0, i1, i2 = (float(ive(k, strength)) for k in range(3))
    ratio = i2 / i1 if strength else 0.0
    square = 1 - 3 * ratio / strength if strength else 0.25
    law.within(
        torch.stack([theta.cos(), (2 * theta).cos(), theta.sin()], 1), torch.tensor([i1 / i0, i2 / i0, 0.0]), "θ"
    )
    law.within(torch.stack([h, h**2], 1), torch.tensor([ratio, square]), "h")
    with pytest.raises(AssertionError, match="standard errors"):
        law.within(von_mises(alpha + 0.1 + 0.1 * strength, generator()).cos(), i1 / i0, "θ")
    assert len(theta) == n


def test_links_that_move_together_share_no_plaquette() -> None:
    """Every link once; the staples of a part contain none of its links."""
    for extents in [(2, 2), (3, 4), (5, 3), (2, 3, 4), (3, 3, 3, 2)]:
        found = parts(extents)
        every = torch.cat([part.links for part in found]).sort().values
        assert torch.equal(every, torch.arange(len(extents) * math.prod(extents)))
        assert len(found) <= len(extents) * (3 if any(n % 2 for n in extents) else 2)
        for part in found:
            frozen = torch.cat([part.forward.flatten(), part.backward.flatten()])
            assert not torch.isin(frozen, part.links).any()


@pytest.mark.parametrize(
    "action", [U1Gauge((3, 2, 2), 1.5), SUNGauge((2, 3), 2, 2.2), SUNGauge((2, 2), 3, 5.0)], ids=str
)
def test_overrelaxation_keeps_the_action_and_moves_far(action: U1Gauge | SUNGauge) -> None:
    kernel, x = HeatBath(action), action.field.random(8, generator())
    step = kernel._move_matrices if x.is_complex() else kernel._move_angles
    links = x.flatten(1, 1 + action.field.lattice.dimension).movedim(0, -1).contiguous()
    for part in parts(action.extents):
        moved = links.clone()
        moved[part.links] = step(links, part, None).movedim(-2, 0)
        y = moved.movedim(-1, 0).reshape(x.shape)
        torch.testing.assert_close(action.energy(y), action.energy(x), rtol=0, atol=1e-11)
        assert (moved - links)[part.links].abs().mean() > 0.1
        moved[part.links] = step(moved, part, None).movedim(-2, 0)
        if order_of(action) < 3:  # a reflection; of SU(3) one subgroup after the other is none
            torch.testing.assert_close(action.field.exp(moved.movedim(-1, 0).reshape(x.shape), 0 * x), x)


@pytest.mark.parametrize("action", [U1Gauge((2, 2), 0.5), SUNGauge((2, 2), 2, 0.7), SUNGauge((2, 2), 3, 0.7)], ids=str)
@pytest.mark.parametrize("method", simulated())
def test_exact_samples_stay_exact(action: U1Gauge | SUNGauge, method: str) -> None:
    """Samples of Haar measure, accepted with e^{-S}: two steps later S and S² have the same means."""
    x = exact_samples(action, 2000)
    before = action.energy(x)
    kernel = simulated()[method](action)
    state = kernel.init(x)
    for seed in range(2):
        state, _ = kernel.step(state, generator(20 + seed))
    law.within(state.energy, -4 * action.beta * exact_plaquette(action), f"{kernel}: ⟨S⟩")
    law.within((state.energy.square() - before.square()), 0.0, f"{kernel}: ⟨S²⟩")


@pytest.mark.parametrize("action", [U1Gauge((2, 2), 0.5), SUNGauge((2, 2), 2, 0.7), SUNGauge((2, 2), 3, 0.7)], ids=str)
def test_creutz_equality_on_groups(action: U1Gauge | SUNGauge) -> None:
    x, scale = exact_samples(action, 2000), 1.0 if order_of(action) > 1 else 0.6
    for method, step_size in {"leapfrog": 0.8, "omf2": 1.4, "omf4": 2.0}.items():
        law.creutz(HMC(action, scale * step_size, 2, method), x)
    lowest = x[action.energy(x).argmin()].expand_as(x)
    with pytest.raises(AssertionError, match="exact value"):
        law.creutz(HMC(action, scale * 0.8, 2), lowest)


def exact_samples(action: U1Gauge | SUNGauge, n: int) -> Tensor:
    """Independent samples, by rejection of Haar measure: no action is below -β for each plaquette."""
    x = action.field.random(n * _TRIES, generator(30))
    uniform = torch.rand(len(x), generator=generator(31), dtype=torch.float64)
    x = x[uniform.log() < -4 * action.beta - action.energy(x)]
    assert len(x) > n
    return x[:n]


# ------------------------------------------------------------------------------------------- flows as samplers


def randomised(layer: Bijection, scale: float) -> Bijection:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator(3), dtype=parameter.dtype))
    return layer


def layers() -> dict[str, tuple[Action, Bijection]]:
    """Layers far from the identity."""
    square, box = U1Gauge((4, 4), 1.0), SUNGauge((2, 4), 2, 2.0)
    plaquettes = PlaquetteCoupling(square.field, link_stripes(square.field.lattice, 0, 1))
    residual = ResidualCoupling(box.field, link_parity(box.field.lattice, 1, 0))
    return {"U(1)": (square, randomised(plaquettes, 0.1)), "SU(2)": (box, randomised(residual, 0.3))}


@pytest.mark.parametrize("name", layers())
def test_hybrid_monte_carlo_of_transformed_links(name: str) -> None:
    action, layer = layers()[name]
    pulled_back = PulledBack(action, layer)
    z = action.field.random(2, generator())
    assert (layer.forward(z)[1].abs() > 0.01).all()
    law.reversible(pulled_back, INTEGRATORS["leapfrog"])
    law.order(pulled_back, INTEGRATORS["leapfrog"], 8)
    kernel = Latent(pulled_back, HMC(pulled_back, 0.3, 4, jitter=0.2))
    found = plaquette_of(kernel, action, 32, 50, 20)
    assert abs(found.z_score(exact_plaquette(action))) < law.LIMIT


@pytest.mark.parametrize("name", layers())
def test_flows_propose_links(name: str) -> None:
    action, layer = layers()[name]
    kernel = IndependenceMetropolis(replace(action, beta=0.3), Transformed(White(action.field), layer))
    found = plaquette_of(kernel, kernel.action, 64, 150)
    assert abs(found.z_score(exact_plaquette(kernel.action))) < law.LIMIT


def test_annealing_of_links() -> None:
    action = U1Gauge((2, 3), 1.5)
    sampler = Annealing(White(action.field), action, lambda a: HMC(a, 0.5, 3, jitter=0.2), n_stages=8)
    samples = sampler.sample(1000, generator(), lambda x: {"plaquette": plaquette(action.field, x)})
    assert samples.effective_sample_size(generator()).value > 0.2
    assert abs(samples.log_z().z_score(gauge_torus_log_z(action.extents, 1, action.beta))) < law.LIMIT
    assert abs(samples.estimates()["plaquette"].z_score(exact_plaquette(action))) < law.LIMIT


def test_chains_reweighted_to_another_coupling() -> None:
    source, target = SUNGauge((4, 4), 2, 2.0), SUNGauge((4, 4), 2, 2.4)

    def measure(x: Tensor) -> dict[str, Tensor]:
        return {"plaquette": plaquette(source.field, x)}

    x = equilibrated(source, 32, 40, generator(), n_warm_up=20, spacing=1)
    found = reweight_chains(x, source, target, measure)["plaquette"]
    assert abs(found.z_score(exact_plaquette(target))) < law.LIMIT
    assert abs(found.z_score(exact_plaquette(source))) > law.LIMIT
    same = reweight_chains(x, source, source, measure)["plaquette"]
    assert same.value == pytest.approx(plaquette(source.field, x.flatten(0, 1)).mean().item())
    with pytest.warns(UserWarning, match="hardly overlap"):
        reweight_chains(x[:, :10], source, replace(source, beta=12.0), measure)


def test_kernels_recommended_for_links() -> None:
    assert isinstance(sampler_for(U1Gauge((4, 4), 2.0)), HeatBath)
    assert isinstance(sampler_for(IMPROVED), HMC)
    assert equilibrated(IMPROVED, 16, 5, generator(), n_warm_up=30).shape == (16, 5, 2, 3, 3, 2, 2)


@pytest.mark.parametrize("kernel", [HMC(GROUPS["SU(2)"], 0.1, 3, jitter=0.1), HeatBath(GROUPS["SU(3)"])], ids=str)  # type: ignore[arg-type]
def test_links_in_single_precision(kernel: HMC | HeatBath) -> None:
    law.well_formed(kernel, kernel.action.field, torch.float32)


@pytest.mark.parametrize(
    "make",
    [
        lambda: HeatBath(IMPROVED),
        lambda: HeatBath(0.5 * PLAIN),  # type: ignore[arg-type]
        lambda: HeatBath(PLAIN, -1),
        lambda: HeatBath(PLAIN, 1.5),  # type: ignore[arg-type]
        lambda: NestedHMC((), 0.1, ()),
        lambda: NestedHMC((PLAIN, PLAIN), 0.1, (3,)),
        lambda: NestedHMC((PLAIN, GROUPS["SU(3)"]), 0.1, (3, 2)),
        lambda: NestedHMC((PLAIN, PLAIN), 0.1, (3, 0)),
        lambda: reweight_chains(torch.zeros(2, 2), PLAIN, PLAIN, lambda x: {}),
    ],
)
def test_bad_input_is_refused_with_advice(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"expected .*got .*: "):
        make()
