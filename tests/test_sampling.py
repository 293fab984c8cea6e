"""Kernels by law and against exact answers; reweighting and annealing against exact partition functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from flows.bases import GaussianField, White
from flows.distribution import Transformed
from flows.layers.fourier import FourierScaling
from flows.sampling.annealing import Annealing, resampled
from flows.sampling.cluster import SwendsenWang, Wolff, pair_couplings
from flows.sampling.composite import Composite
from flows.sampling.density import Conditioned, Density
from flows.sampling.hmc import HMC
from flows.sampling.independence import IndependenceMetropolis, metropolise
from flows.sampling.integrators import INTEGRATORS, Integrator
from flows.sampling.kernel import Info, Kernel, State, run
from flows.sampling.latent import Latent, PulledBack
from flows.sampling.local import LocalMetropolis, SpinHeatBath, sweep
from flows.sampling.metropolis import accept
from flows.sampling.reweighting import WeightedSamples, reweight
from lattices.action import Action
from lattices.exact import ising_enumeration, phi4_moments
from lattices.fields import Circle, FieldSpace, Sphere
from lattices.invariance import SiteSign
from lattices.lattice import Lattice
from lattices.statistics import chain_mean, effective_sample_size
from lattices.theories.free_field import FreeField
from lattices.theories.ising import Ising
from lattices.theories.phi4 import Phi4
from lattices.theories.scalar import Scalar
from tests.discovery import examples
from tests.laws import kernels as law
from tests.laws.actions import ACTION_LAWS
from tests.laws.kernels import generator

FREE = FreeField(extents=(4, 4), mass_squared=1.0)
PHI4 = Phi4(extents=(2, 2), mass_squared=-4.0, quartic=8.0)
SPINS = Ising(extents=(2, 2), coupling=0.25)


def space(kernel: Kernel) -> FieldSpace:
    if isinstance(kernel, Composite):
        return space(kernel.kernels[0])
    action: Action = kernel.pulled_back.action if isinstance(kernel, Latent) else kernel.action  # type: ignore
    return action.field


def fourier_flow(action: Action) -> Transformed:
    """White noise through a Fourier layer with some random scales."""
    layer = FourierScaling(action.field)
    with torch.no_grad():
        layer.log_scale.copy_(
            -0.7 + 0.2 * torch.randn(len(layer.log_scale), generator=generator(), dtype=torch.float64)
        )
    return Transformed(White(action.field), layer)


def free_kernels() -> list[Kernel]:
    """Every kernel for fields on R, at work on a free field, rough enough to be seen."""
    flow = fourier_flow(FREE)
    pulled_back = PulledBack(FREE, flow.bijection)
    hmc = HMC(FREE, 0.2, 4, jitter=0.3)
    return [
        hmc,
        HMC(FREE, 0.3, 3, integrator="omf2"),
        HMC(FREE, 0.6, 2, integrator="omf4"),
        Latent(pulled_back, HMC(pulled_back, 0.3, 4)),
        IndependenceMetropolis(FREE, flow, block=2),
        LocalMetropolis(FREE, 0.8),
        SwendsenWang(FREE),
        Wolff(FREE),
        Composite((SwendsenWang(FREE), hmc)),
    ]


@dataclass(frozen=True)
class NoAcceptStep(Kernel):
    """The end of every trajectory, whatever its energy: not exact."""

    kernel: HMC

    def init(self, x: Tensor) -> State:
        return self.kernel.init(x)

    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        return self.kernel.step(state._replace(energy=state.energy + 1e6), generator)


@dataclass(frozen=True)
class Plain(Action):
    """Independent cells: S = -Σ cos x."""

    space: FieldSpace
    symmetries = ()
    broken = SiteSign()

    @property
    def field(self) -> FieldSpace:
        return self.space

    def energy(self, x: Tensor) -> Tensor:
        return -x.cos().flatten(1).sum(1)

    @classmethod
    def examples(cls) -> Iterator[Plain]:
        yield cls(FieldSpace(Lattice((4,)), Sphere(2)))


def spin_kernels(action: Ising) -> list[Kernel]:
    return [SpinHeatBath(action), SwendsenWang(action), Wolff(action)]


@dataclass(frozen=True)
class SpinMetropolis(Kernel):
    """Metropolis flips of one colour at a time: stationary, and not ergodic."""

    action: Ising

    def init(self, x: Tensor) -> State:
        return State(x, self.action(x))

    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        return sweep(self.action, state.x, lambda x: -2 * x, 1, lambda difference: accept(-difference, generator))


@pytest.mark.parametrize("kernel", examples(Kernel))
def test_well_formed(kernel: Kernel) -> None:
    law.well_formed(kernel, space(kernel))


@pytest.mark.parametrize(
    "make", [lambda a: HMC(a, 0.1, 3, jitter=0.1), lambda a: LocalMetropolis(a, 0.5), SwendsenWang]
)
def test_single_precision(make: type) -> None:
    law.well_formed(make(PHI4), PHI4.field, torch.float32)


@pytest.mark.parametrize("coupling", [0.25, -0.3])
@pytest.mark.parametrize("number", range(3))
def test_spin_kernels_are_stationary_and_ergodic(number: int, coupling: float) -> None:
    action = Ising((2, 2), coupling)
    kernel = spin_kernels(action)[number]
    law.stationary(kernel, action)
    law.ergodic(kernel, action)


def test_detailed_balance() -> None:
    ring = Ising((4,), 0.4)
    for action in (SPINS, ring):
        law.detailed_balance(SwendsenWang(action), action)
        law.detailed_balance(Wolff(action), action)


def test_negative_controls_of_spin_laws() -> None:
    warmer = Ising((2, 2), 0.2)
    for kernel in spin_kernels(warmer):
        with pytest.raises(AssertionError, match="stationary"):
            law.stationary(kernel, SPINS)
    with pytest.raises(AssertionError, match="detailed balance"):  # even then odd sites: stationary, not reversible
        law.detailed_balance(SpinHeatBath(SPINS), SPINS)
    law.stationary(SpinMetropolis(SPINS), SPINS)
    with pytest.raises(AssertionError, match="does not reach"):
        law.ergodic(SpinMetropolis(SPINS), SPINS)


@pytest.mark.parametrize("name", INTEGRATORS)
def test_integrators(name: str) -> None:
    action = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
    law.reversible(action, INTEGRATORS[name])
    law.order(action, INTEGRATORS[name])
    assert math.isclose(sum(INTEGRATORS[name].kicks), 1)
    assert math.isclose(sum(INTEGRATORS[name].drifts), 1)


def test_negative_controls_of_integrators() -> None:
    action = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
    with pytest.raises(AssertionError, match="misses its start"):
        law.reversible(action, Integrator((0.6, 0.4), (1.0,), 2))
    with pytest.raises(AssertionError, match="order"):
        law.order(action, replace(INTEGRATORS["leapfrog"], order=4))


@pytest.mark.parametrize("name", INTEGRATORS)
def test_creutz_equality(name: str) -> None:
    kernel = HMC(FREE, {"leapfrog": 0.25, "omf2": 0.5, "omf4": 0.9}[name], 4, name, jitter=0.1)
    law.creutz(kernel, law.gaussian_samples(FREE, 4000))
    with pytest.raises(AssertionError, match="exact value"):
        law.creutz(kernel, 0.5 * law.gaussian_samples(FREE, 4000))


@pytest.mark.parametrize("number", range(len(free_kernels())))
def test_exact_samples_stay_exact(number: int) -> None:
    law.stays_exact(free_kernels()[number], FREE)


@pytest.mark.parametrize(
    "kernel",
    [
        NoAcceptStep(HMC(FREE, 0.25, 4)),
        LocalMetropolis(1.2 * FREE, 0.8),
        SwendsenWang(FreeField((4, 4), 1.0) * 0.5),
        IndependenceMetropolis(FREE * 0.8, fourier_flow(FREE)),
    ],
    ids=lambda kernel: type(kernel).__name__,
)
def test_wrong_kernels_do_not_stay_exact(kernel: Kernel) -> None:
    with pytest.raises(AssertionError, match="exact value"):
        law.stays_exact(kernel, FREE)


def phi4_kernels() -> list[Kernel]:
    hmc, flow = HMC(PHI4, 0.2, 5, jitter=0.2), fourier_flow(PHI4)
    latent = PulledBack(PHI4, flow.bijection)
    return [
        hmc,
        Latent(latent, HMC(latent, 0.3, 4)),
        LocalMetropolis(PHI4, 0.8),
        IndependenceMetropolis(PHI4, GaussianField.of(PHI4), block=32),
        Composite((Wolff(PHI4), hmc)),
    ]


@pytest.mark.parametrize("number", range(5))
def test_phi4_moments(number: int) -> None:
    exact = phi4_moments((2, 2), -4.0, 8.0)
    kernel = phi4_kernels()[number]
    kernel, state = kernel.adapt(kernel.init(0.3 * PHI4.field.random(256, generator())), 40, generator(2))

    def measure(x: Tensor) -> dict[str, Tensor]:
        return {"second": x.square().flatten(1).mean(1), "fourth": x.pow(4).flatten(1).mean(1)}

    history = run(kernel, state, 60, generator(3), measure)
    for name, reference in ("second", exact.phi_squared), ("fourth", exact.phi_fourth):
        found = chain_mean(history.measured[name])
        assert found.error < 0.03 * reference
        assert abs(found.z_score(reference)) < 4, f"{kernel}: {name} {found}, exact {reference}"


@pytest.mark.parametrize("number", range(3))
def test_ising_energy(number: int) -> None:
    action = Ising((4, 4), 0.44)
    exact = ising_enumeration((4, 4), 0.44).energy * 16 * 0.44
    kernel = spin_kernels(action)[number]
    _, state = kernel.adapt(kernel.init(action.field.random(128, generator())), 60, generator(2))
    found = chain_mean(run(kernel, state, 100, generator(3), lambda x: {"S": action.energy(x)}).measured["S"])
    assert found.error < 0.02 * abs(exact)
    assert abs(found.z_score(exact)) < 4, f"{kernel}: {found}, exact {exact}"


def test_adaptation_reaches_its_target_and_freezes() -> None:
    action = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
    start = 0.3 * action.field.random(32, generator())
    for kernel, target in (
        (HMC(action, 0.01, 5), 0.8),
        (HMC(action, 2.0, 5), 0.8),
        (LocalMetropolis(action, 9.0), 0.5),
    ):
        tuned, state = kernel.adapt(kernel.init(start), 150, generator())
        accepted = run(tuned, state, 60, generator(2)).accepted.mean().item()
        assert abs(accepted - target) < 0.08, f"{tuned}: acceptance {accepted}"
        assert kernel.adapt(kernel.init(start), 0, generator())[0] == kernel


def test_diverging_trajectories_are_refused() -> None:
    kernel = HMC(PHI4, 50.0, 20)
    state = kernel.init(PHI4.field.random(8, generator()))
    new, info = kernel.step(state, generator())
    assert torch.equal(new.x, state.x)
    assert not info.accepted.any()
    assert new.energy.isfinite().all()
    assert not info.delta.isnan().any()


def test_hmc_on_the_circle() -> None:
    action = Plain(FieldSpace(Lattice((4,)), Circle()))
    kernel = HMC(action, 0.5, 4, jitter=0.3)
    state = kernel.adapt(kernel.init(action.field.random(200, generator())), 20, generator(2))[1]
    history = run(kernel, state, 100, generator(3), lambda x: {"cos": x.cos().mean(1)})
    assert action.field.contains(history.state.x).all()
    found = chain_mean(history.measured["cos"])
    assert found.error < 0.01
    assert abs(found.z_score(0.44638997)) < 4  # I₁(1) / I₀(1)


def test_latent_field_and_energy() -> None:
    flow = fourier_flow(PHI4)
    pulled_back = PulledBack(PHI4, flow.bijection)
    kernel = Latent(pulled_back, HMC(pulled_back, 0.1, 3))
    x = PHI4.field.random(5, generator())
    state = kernel.init(x)
    assert torch.allclose(state.x, x)
    assert torch.allclose(state.energy, PHI4(x))
    z = pulled_back.pull(x)
    assert torch.allclose(pulled_back.energy(z), PHI4(x) - flow.bijection(z)[1])
    ideal = PulledBack(Density(flow), flow.bijection)  # an ideal flow sees its base
    assert torch.allclose(ideal.energy(z), -flow.base.log_prob(z))


@pytest.mark.parametrize("action", [*Density.examples(), *PulledBack.examples()], ids=lambda a: type(a).__name__)
def test_actions_made_of_flows_obey_the_laws_of_actions(action: Action) -> None:
    """All but those on dtype and device, which the module inside decides."""
    decided = {"one_value_per_field", "precise_in_single", "follows_device"}
    for each in ACTION_LAWS:
        if each.__name__ not in decided:
            each(action)


def test_pulled_back_and_conditioned_couplings() -> None:
    layer = FourierScaling(PHI4.field, n_context=2)
    with torch.no_grad():
        layer.response.normal_(generator=generator())
    couplings = torch.tensor([0.3, -0.2], dtype=torch.float64)
    flow = Transformed(White(PHI4.field), layer)
    fixed, z = Conditioned(flow, couplings), PHI4.field.random(4, generator())
    x, log_prob = fixed.sample_with_log_prob(4, generator=generator())
    assert torch.allclose(fixed.log_prob(x), log_prob)
    assert torch.allclose(flow.log_prob(x, couplings.expand(4, -1)), log_prob)
    expected = PHI4.energy(layer(z, couplings.expand(4, -1))[0]) - layer(z, couplings.expand(4, -1))[1]
    assert torch.allclose(PulledBack(PHI4, layer, couplings).energy(z), expected)


def test_metropolise_agrees_with_theory() -> None:
    """With two weights 1 and r the chain spends r/(1+r) of its time at the heavy samples."""
    heavy = torch.rand(20000, generator=generator(), dtype=torch.float64) < 0.5
    chain = metropolise(torch.where(heavy, math.log(3.0), 0.0), generator(2))
    found = chain_mean(heavy[chain.indices].double()[None])
    assert abs(found.z_score(0.75)) < 4
    # a light sample accepts all, a heavy one heavy proposals and a third of the light ones
    assert abs(chain.acceptance - (0.25 + 0.75 * (0.5 + 0.5 / 3))) < 0.02
    assert metropolise(torch.zeros(100), generator()).acceptance == 1
    stuck = metropolise(torch.tensor([0.0] + [-math.inf] * 9), generator())
    assert stuck.acceptance == 0
    assert stuck.indices.tolist() == [0] * 10


def test_independence_matches_metropolise_in_acceptance() -> None:
    flow = GaussianField.of(PHI4)
    kernel = IndependenceMetropolis(PHI4, flow, block=16)
    history = run(kernel, kernel.start(100, generator()), 100, generator(2))
    chain = metropolise(reweight(flow, PHI4, 20000, generator(3)).log_weights, generator(4))
    assert abs(history.accepted.mean().item() - chain.acceptance) < 0.03


def test_pair_couplings_are_read_off() -> None:
    assert pair_couplings(Phi4((2, 3), 1.0, 1.0)) == (2.0, 2.0)
    assert pair_couplings(Ising((2, 3, 4), -0.2)) == pytest.approx((-0.2,) * 3)
    assert pair_couplings(FreeField((1, 4), 1.0)) == (0.0, 2.0)


def test_reweighting_gives_exact_numbers() -> None:
    exact, flow = phi4_moments((2, 2), -4.0, 8.0), fourier_flow(PHI4)
    samples = reweight(flow, PHI4, 20001, generator(), lambda x: {"square": x.flatten(1) ** 2, "x": x[:, 0, 0]}, 1000)
    assert samples.x is None
    assert samples.measured["square"].shape == (20001, 4)
    assert samples.effective_sample_size(generator()).value * 20001 > 1000
    assert abs(samples.log_z().z_score(exact.log_z)) < 4
    found = samples.estimates()
    assert set(found) == {"x", *(f"square[{i}]" for i in range(4))}
    assert all(abs(found[f"square[{i}]"].z_score(exact.phi_squared)) < 4 for i in range(4))
    assert abs(found["x"].z_score(0.0)) < 4
    assert samples.function(lambda x: x**2, "x").value == pytest.approx(found["x"].value ** 2)


def test_gathering_and_keeping_fields() -> None:
    samples = reweight(fourier_flow(PHI4), PHI4, 10, generator(), chunk=4)
    both = samples.gathered(lambda t: torch.cat([t, t]))
    assert samples.x is not None
    assert both.x is not None
    assert samples.x.shape == (10, 2, 2)
    assert both.x.shape == (20, 2, 2)
    assert len(both.log_weights) == 20
    assert torch.allclose(samples.log_weights, -PHI4(samples.x) - fourier_flow(PHI4).log_prob(samples.x))


@pytest.mark.parametrize("resample_below", [0.0, 0.7])
@pytest.mark.parametrize("base", ["gaussian", "flow"])
def test_annealing_gives_exact_numbers(base: str, resample_below: float) -> None:
    exact = phi4_moments((2, 2), -4.0, 8.0)
    start = fourier_flow(PHI4) if base == "flow" else White(PHI4.field)
    sampler = Annealing(start, PHI4, lambda a: HMC(a, 0.25, 2), n_stages=8, resample_below=resample_below)
    samples = sampler.sample(4000, generator(), lambda x: {"square": x.square().flatten(1).mean(1)}, chunk=200)
    assert samples.log_z().error < 0.05
    assert abs(samples.log_z().z_score(exact.log_z)) < 4
    assert abs(samples.estimates()["square"].z_score(exact.phi_squared)) < 4
    direct = reweight(start, PHI4, 4000, generator())
    assert effective_sample_size(samples.log_weights).value > effective_sample_size(direct.log_weights).value


def test_annealing_without_moves_is_reweighting_and_wrong_moves_are_seen() -> None:
    start, exact = White(PHI4.field), phi4_moments((2, 2), -4.0, 8.0)
    frozen = Annealing(start, PHI4, lambda a: HMC(a, 1e-12, 1), n_stages=5).sample(50, generator())
    assert frozen.x is not None
    assert torch.allclose(frozen.log_weights, -PHI4(frozen.x) - start.log_prob(frozen.x))
    wrong = Annealing(start, PHI4, lambda a: HMC(1.5 * PHI4, 0.2, 5), n_stages=8).sample(4000, generator())
    assert abs(wrong.log_z().z_score(exact.log_z)) > 4


def test_annealing_is_tuned_stage_by_stage() -> None:
    sampler = Annealing(White(PHI4.field), PHI4, lambda a: HMC(a, 0.05, 3), n_stages=3).tuned(64, 60, generator())
    steps = [kernel.step_size for kernel in sampler.kernels]  # type: ignore[attr-defined]
    assert len(steps) == 3
    assert all(0.1 < step < 2 for step in steps)


def test_resampling_keeps_the_mean_weight() -> None:
    x, log_weights = torch.arange(4.0, dtype=torch.float64), torch.tensor([0.0, 1.0, 3.0, -2.0], dtype=torch.float64)
    draws = [resampled(x, log_weights, 0.99, generator(seed)) for seed in range(400)]
    counts = torch.stack([torch.bincount(d[0].long(), minlength=4) for d in draws]).double()
    law.within(counts, 4 * log_weights.softmax(0), "systematic resampling")
    assert torch.allclose(draws[0][1].logsumexp(0), log_weights.logsumexp(0))
    assert torch.equal(resampled(x, log_weights, 0.0, generator())[0], x)


def test_run_records_independent_histories() -> None:
    kernel = HMC(PHI4, 0.1, 2)
    history = run(kernel, kernel.init(PHI4.field.random(3, generator())), 5, generator(), lambda x: {"x": x})
    assert history.measured["x"].shape == (3, 5, 2, 2)
    assert history.delta.shape == (3, 5)


def bad_calls() -> dict[str, Callable[[], object]]:
    x, odd, sphere = (
        PHI4.field.random(2, generator()),
        Phi4((3, 3), 1.0, 1.0),
        Plain(FieldSpace(Lattice((4,)), Sphere(2))),
    )
    flow, g = fourier_flow(PHI4), generator()
    far, source = Scalar((4, 4), diagonal=0.5), Scalar((4, 4), source=0.3)
    big = far.field.random(2, generator())
    return {
        "negative step size": lambda: HMC(PHI4, -0.1, 5),
        "infinite step size": lambda: HMC(PHI4, math.inf, 5),
        "no steps": lambda: HMC(PHI4, 0.1, 0),
        "unknown integrator": lambda: HMC(PHI4, 0.1, 5, "euler"),
        "jitter of one": lambda: HMC(PHI4, 0.1, 5, jitter=1.0),
        "HMC of spins": lambda: HMC(SPINS, 0.1, 5),
        "wrong shape": lambda: HMC(PHI4, 0.1, 5).init(x[0]),
        "NaN": lambda: HMC(PHI4, 0.1, 5).init(x * math.nan),
        "negative warm-up": lambda: HMC(PHI4, 0.1, 5).adapt(HMC(PHI4, 0.1, 5).init(x), -1, g),
        "odd extents": lambda: LocalMetropolis(odd, 0.5),
        "negative width": lambda: LocalMetropolis(PHI4, -0.5),
        "local spins": lambda: LocalMetropolis(SPINS, 0.5),
        "far neighbours, local": lambda: LocalMetropolis(far, 0.5).init(big),
        "degree six with two nodes": lambda: LocalMetropolis(Scalar((4, 4), sextic=1.0), 0.5).init(big),
        "flips of a scalar": lambda: SpinHeatBath(PHI4),
        "spins of two": lambda: SpinHeatBath(SPINS).init(2 * torch.ones(1, 2, 2)),
        "far neighbours, cluster": lambda: SwendsenWang(far).init(big),
        "source": lambda: Wolff(source).init(big),
        "clusters on a sphere": lambda: Wolff(sphere),
        "empty composite": lambda: Composite(()),
        "other lattice": lambda: IndependenceMetropolis(odd, flow),
        "no block": lambda: IndependenceMetropolis(PHI4, flow, 0),
        "other lattice, latent": lambda: PulledBack(odd, flow.bijection),
        "context with a batch": lambda: PulledBack(PHI4, flow.bijection, torch.zeros(2, 2)),
        "conditioned on a batch": lambda: Conditioned(flow, torch.zeros(2, 2)),
        "one weight": lambda: metropolise(torch.zeros(1), g),
        "NaN weight": lambda: metropolise(torch.tensor([0.0, math.nan]), g),
        "dead start": lambda: metropolise(torch.tensor([-math.inf, 0.0]), g),
        "one sample": lambda: reweight(flow, PHI4, 1, g),
        "chunk of zero": lambda: reweight(flow, PHI4, 10, g, chunk=0),
        "other lattice, reweighting": lambda: reweight(flow, odd, 10, g),
        "unequal lengths": lambda: WeightedSamples(torch.zeros(3), {"x": torch.zeros(2)}),
        "broken populations": lambda: WeightedSamples(torch.zeros(3), {}, block_length=2),
        "no stages": lambda: Annealing(flow, PHI4, lambda a: HMC(a, 0.1, 5), 0),
        "threshold of one": lambda: Annealing(flow, PHI4, lambda a: HMC(a, 0.1, 5), 5, 1.0),
        "unequal populations": lambda: Annealing(flow, PHI4, lambda a: HMC(a, 0.1, 5), 5, 0.5).sample(10, g, chunk=4),
        "no run": lambda: run(HMC(PHI4, 0.1, 5), HMC(PHI4, 0.1, 5).init(x), -3, g),
    }


@pytest.mark.parametrize("name", bad_calls())
def test_bad_input_is_refused_with_advice(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*got .*: |got .*: |expected .*: "):
        bad_calls()[name]()


def test_phi4_shape_functions_act_elementwise() -> None:
    samples = reweight(GaussianField.of(PHI4), PHI4, 2000, generator(), lambda x: {"m2": x.mean((1, 2)) ** 2})
    assert np.isfinite(samples.function(lambda m2: 1 / m2, "m2").error)
