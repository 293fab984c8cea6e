"""Markov chains of spins on circles, spheres and clocks, against laws and exact energies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from scipy.special import ive
from torch import Tensor

from flows.bases import White
from flows.distribution import Transformed
from flows.sampling import embedded, integrators
from flows.sampling.annealing import Annealing
from flows.sampling.choice import equilibrated, sampler_for
from flows.sampling.composite import Composite
from flows.sampling.density import Density
from flows.sampling.draws import categorical, von_mises_fisher
from flows.sampling.embedded import EmbeddedClusters, EmbeddedSwendsenWang, EmbeddedWolff
from flows.sampling.hmc import HMC
from flows.sampling.independence import IndependenceMetropolis
from flows.sampling.integrators import INTEGRATORS, Integrator, drifted, restored
from flows.sampling.kernel import Kernel, run
from flows.sampling.latent import Latent, PulledBack
from flows.sampling.nested import NestedHMC
from flows.sampling.spin_heatbath import ClockHeatBath, VectorHeatBath, overrelaxed, parts
from flows.sampling.spin_kernel import spin_couplings
from lattices.action import Action
from lattices.exact.spins import clock_link, on_link, spin_ring
from lattices.fields import FieldSpace, Sphere
from lattices.lattice import Lattice
from lattices.spins import from_vectors, unit_vectors
from lattices.statistics import Estimate, chain_mean, integrated_autocorrelation_time
from lattices.theories.clock import Clock
from lattices.theories.ising import Ising
from lattices.theories.on import ON
from lattices.theories.phi4 import Phi4
from lattices.theories.u1_gauge import U1Gauge
from lattices.theories.xy import XY
from tests.laws import kernels as law
from tests.laws.faulty import Mobius
from tests.laws.kernels import generator

Make = Callable[[Action], Kernel]

MOVING: dict[str, Action] = {
    "O(3)": ON((4, 4), 3, 1.2),
    "O(2)": ON((5,), 2, 0.7),
    "O(4)": ON((3, 2), 4, -0.5),
    "XY": XY((3, 4), 0.9, crystal=0.5),
}
PARTS = ON((3, 4), 3, 0.4), ON((3, 4), 3, 0.8)
SMALL: dict[str, Action] = {  # few enough bonds for exact samples by rejection
    "XY": XY((2, 2), 0.6),
    "XY odd": XY((5,), -0.8),
    "O(3)": ON((2, 2), 3, 0.5),
    "O(4) odd": ON((3,), 4, 1.5),
    "clock of 6": Clock((2, 2), 6, 0.6),
    "clock of 5": Clock((3,), 5, -1.2),
}
_TRIES = 40


def is_clock(action: Action) -> bool:
    return isinstance(action, Clock)


def exact_energy(action: Action) -> float:
    """⟨S⟩ on rings, and on the 2 × 2 torus, which is a ring of twice the coupling."""
    beta = action.beta * len(action.extents)  # type: ignore[attr-defined]
    link = clock_link(action.q, beta) if isinstance(action, Clock) else on_link(getattr(action, "n", 2), beta)
    length = action.field.lattice.volume
    return beta * length * spin_ring(link, length).energy


@cache
def exact_samples(action: Action, n: int) -> Tensor:
    """Independent samples, by rejection of the uniform distribution."""
    x = action.field.random(n * _TRIES, generator(30))
    bonds = len(action.extents) * action.field.lattice.volume  # type: ignore[attr-defined]
    uniform = torch.rand(len(x), generator=generator(31), dtype=torch.float64)
    x = x[uniform.log() < -action.energy(x) - abs(action.beta) * bonds]  # type: ignore[attr-defined]
    assert len(x) > n
    return x[:n]


def magnetisation(field: FieldSpace, x: Tensor) -> Tensor:
    """|Σ_x s_x|² / V."""
    return unit_vectors(field, x).flatten(1, -2).sum(1).square().sum(-1) / field.lattice.volume


def kernels() -> dict[str, Make]:
    return {
        "HMC": lambda action: HMC(action, 0.6, 3, "omf2", jitter=0.2),
        "nested": lambda action: NestedHMC((0.3 * action, 0.7 * action), 0.4, (3, 2), jitter=0.2),
        "Swendsen-Wang": EmbeddedSwendsenWang,
        "Wolff": EmbeddedWolff,
        "heat bath": lambda action: ClockHeatBath(action) if is_clock(action) else VectorHeatBath(action, 0),
        "overrelaxed": lambda action: VectorHeatBath(action, 1),
        "recommended": lambda action: sampler_for(0.5 * action + 0.5 * action),
    }


def stays_exact(kernel: Kernel, action: Action, n: int = 3000, n_steps: int = 3) -> None:
    """Chains that start at exact samples keep ⟨S⟩, ⟨S²⟩ and ⟨|M|²⟩."""
    x = exact_samples(action, n)
    state = kernel.init(x)
    for seed in range(n_steps):
        state, _ = kernel.step(state, generator(20 + seed))
    energy, before = action.energy(state.x), action.energy(x)
    law.within(energy, exact_energy(action), f"{kernel}: ⟨S⟩")
    law.within(energy.square() - before.square(), 0.0, f"{kernel}: ⟨S²⟩, compared with the exact value")
    moved = magnetisation(action.field, state.x) - magnetisation(action.field, x)
    law.within(moved, 0.0, f"{kernel}: ⟨|M|²⟩, compared with the exact value")
    assert (state.x - x).abs().mean() > 0.1


def energy_of(kernel: Kernel, action: Action, n_chains: int, n_steps: int, n_warm_up: int = 30) -> Estimate:
    """⟨S⟩/V of chains that start hot; at least two hundred effective samples."""
    state = kernel.init(action.field.random(n_chains, generator(7)))
    state = run(kernel, state, n_warm_up, generator(8)).state
    history = run(kernel, state, n_steps, generator(9), lambda x: {"S": action.energy(x)})
    chains = history.measured["S"] / action.field.lattice.volume
    assert chains.numel() / (2 * integrated_autocorrelation_time(chains).value) > 200
    return chain_mean(chains)


# ------------------------------------------------------------------------------------------- Hamiltonian dynamics


@pytest.mark.parametrize("method", INTEGRATORS)
@pytest.mark.parametrize("name", MOVING)
def test_integrators(name: str, method: str) -> None:
    law.reversible(MOVING[name], INTEGRATORS[method])
    law.order(MOVING[name], INTEGRATORS[method], 16)


@pytest.mark.parametrize("method", ["leapfrog", "omf2"])
def test_nested_integrators(method: str) -> None:
    law.reversible(PARTS, INTEGRATORS[method])
    law.order(PARTS, INTEGRATORS[method], 8)


def without_transport(field: FieldSpace, x: Tensor, momentum: Tensor, time: float | Tensor) -> tuple[Tensor, Tensor]:
    """A drift that leaves the momentum where it was, off the new tangent space."""
    return field.exp(x, time * momentum), momentum


def projected(field: FieldSpace, x: Tensor, momentum: Tensor, time: float | Tensor) -> tuple[Tensor, Tensor]:
    """A drift that projects the momentum instead of turning it: tangent, and too short."""
    end = field.exp(x, time * momentum)
    return end, field.target.gradient(end, momentum)


@pytest.mark.parametrize("wrong", [without_transport, projected])
def test_drifts_without_transport_are_seen(wrong: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrators, "drifted", wrong)
    with pytest.raises(AssertionError, match="misses its start"):
        law.reversible(MOVING["O(3)"], INTEGRATORS["leapfrog"])
    with pytest.raises(AssertionError, match="order"):
        law.order(MOVING["O(3)"], INTEGRATORS["leapfrog"], 16)


def test_negative_controls_of_integrators() -> None:
    with pytest.raises(AssertionError, match="misses its start"):
        law.reversible(MOVING["O(3)"], Integrator((0.6, 0.4), (1.0,), 2))
    with pytest.raises(AssertionError, match="order"):
        law.order(MOVING["O(3)"], replace(INTEGRATORS["leapfrog"], order=4), 8)


def test_free_motion() -> None:
    """Tangent, of constant speed, back at the start after a full turn, at rest for p = 0, through the antipode."""
    field = FieldSpace(Lattice((2, 3)), Sphere(2))
    x = field.random(5, generator())
    p = field.target.normal(x, generator(2))
    time = torch.rand(5, 1, 1, 1, generator=generator(3), dtype=torch.float64)
    y, q = drifted(field, x, p, time)
    assert (y * q).sum(-1).abs().max() < 1e-14
    torch.testing.assert_close(q.norm(dim=-1), p.norm(dim=-1))
    torch.testing.assert_close(drifted(field, y, -q, time), (x, -p))
    unit = p / p.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(drifted(field, x, unit, 2 * math.pi), (x, unit))
    torch.testing.assert_close(drifted(field, x, unit, math.pi), (-x, -unit))
    torch.testing.assert_close(drifted(field, x, 0 * p, 1.0), (x, 0 * p))


@pytest.mark.parametrize("name", ["XY", "O(3)", "O(4) odd"])
def test_creutz_equality(name: str) -> None:
    action = SMALL[name]
    x = exact_samples(action, 3000)
    for method, step_size in {"leapfrog": 0.6, "omf2": 1.0, "omf4": 1.3}.items():
        law.creutz(HMC(action, step_size, 2, method), x)
    lowest = x[action.energy(x).argmin()].expand_as(x)
    with pytest.raises(AssertionError, match="exact value"):
        law.creutz(HMC(action, 0.6, 2), lowest)


def test_trajectories_stay_on_the_sphere() -> None:
    """Rounding moves vectors off the sphere; a step brings them back, and refuses what diverged."""
    action = MOVING["O(3)"]
    x = action.field.random(4, generator())
    off = x * (1 + 1e-6)
    assert action.field.target.distance_from(restored(action.field, off)).max() < 1e-15
    assert restored(action.field, 1.1 * x).isnan().all()
    kernel = HMC(action, 0.3, 10)
    history = run(kernel, kernel.init(x), 50, generator())
    assert action.field.target.distance_from(history.state.x).max() < 1e-15
    wild = HMC(1e200 * action, 1e200, 2)
    state, info = wild.step(wild.init(x), generator())
    assert torch.equal(state.x, x)
    assert not info.accepted.any()


# ------------------------------------------------------------------------------------------- exact energies


def applicable(name: str, method: str) -> bool:
    return not is_clock(SMALL[name]) or method in ("Swendsen-Wang", "Wolff", "heat bath", "recommended")


@pytest.mark.parametrize(("name", "method"), [(a, m) for a in SMALL for m in kernels() if applicable(a, m)])
def test_exact_samples_stay_exact(name: str, method: str) -> None:
    stays_exact(kernels()[method](SMALL[name]), SMALL[name])


@pytest.mark.parametrize("name", ["XY", "O(3)", "clock of 6"])
def test_kernels_of_another_coupling_are_seen(name: str) -> None:
    for method, make in kernels().items():
        if applicable(name, method):
            with pytest.raises(AssertionError, match="exact value"):
                stays_exact(make(replace(SMALL[name], beta=0.3)), SMALL[name])  # type: ignore[type-var]


@pytest.mark.parametrize("name", ["XY", "O(3)", "clock of 6"])
@pytest.mark.parametrize("method", ["Swendsen-Wang", "Wolff"])
def test_wrong_bonds_are_seen(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bonds of probability 1 - exp(-β …) instead of 1 - exp(-2β …)."""
    joined = embedded.joined
    monkeypatch.setattr(embedded, "joined", lambda gains, *rest: joined([gain / 2 for gain in gains], *rest))
    with pytest.raises(AssertionError, match="exact value"):
        stays_exact(kernels()[method](SMALL[name]), SMALL[name])


@pytest.mark.parametrize("make", [EmbeddedSwendsenWang, VectorHeatBath, lambda a: HMC(a, 0.3, 6, jitter=0.3)])
def test_long_chains(make: Make) -> None:
    """E/link = -I₁/I₀ for XY, -(coth β - 1/β) for O(3)."""
    beta = 1.5
    for action, exact in (
        (XY((48,), beta), -float(ive(1, beta) / ive(0, beta))),
        (ON((48,), 3, beta), 1 / beta - 1 / math.tanh(beta)),
    ):
        assert abs(energy_of(make(action), action, 64, 60).z_score(beta * exact)) < law.LIMIT
    assert abs(energy_of(make(action), action, 64, 60).z_score(1.05 * beta * exact)) > law.LIMIT


@pytest.mark.parametrize("method", kernels())
def test_square_of_planar_spins(method: str) -> None:
    """XY on 4 × 4 at β = 1: -1.41172912 for each site."""
    action = XY((4, 4), 1.0)
    assert abs(energy_of(kernels()[method](action), action, 64, 150).z_score(-1.41172912)) < law.LIMIT


@cache
def energy_of_clusters(action: Action) -> Estimate:
    return energy_of(Composite((EmbeddedWolff(action), VectorHeatBath(action))), action, 150, 200)


@pytest.mark.slow
@pytest.mark.parametrize("method", kernels())
def test_square_of_vectors(method: str) -> None:
    """O(3) on 8 × 8 at β = 1.2: every kernel finds the energy of clusters and heat bath in turn."""
    action = ON((8, 8), 3, 1.2)
    reference, found = energy_of_clusters(action), energy_of(kernels()[method](action), action, 100, 400, 80)
    assert found.error < 0.006
    assert abs(found.value - reference.value) < law.LIMIT * math.hypot(found.error, reference.error)


# ------------------------------------------------------------------------------------------- single updates


@pytest.mark.parametrize("n", [2, 3, 4, 7])
@pytest.mark.parametrize("kappa", [0.0, 1e-3, 0.5, 5.0, 1e4])
def test_one_spin_draws(n: int, kappa: float) -> None:
    """⟨t⟩ = I_{n/2}/I_{n/2-1}, ⟨t²⟩ = 1 - (n - 1) ⟨t⟩/κ, and nothing across."""
    unit = torch.randn(n, generator=generator(), dtype=torch.float64)
    unit = unit / unit.norm()
    s = von_mises_fisher((kappa * unit).expand(20000, n), generator(2))
    height = float(ive(n / 2, kappa) / ive(n / 2 - 1, kappa)) if kappa else 0.0
    square = 1 - (n - 1) * height / kappa if kappa else 1 / n
    t = s @ unit
    law.within(torch.stack([t, t**2], 1), torch.tensor([height, square], dtype=torch.float64), "t")
    law.within((s - t[:, None] * unit) * math.sqrt(kappa + 1), 0.0, "across")
    torch.testing.assert_close(s.norm(dim=-1), torch.ones(20000, dtype=torch.float64))
    other = von_mises_fisher(((1.2 * kappa + 0.2) * unit).expand(20000, n), generator(2))
    with pytest.raises(AssertionError, match="standard errors"):
        law.within(other @ unit, height, "t")


@pytest.mark.parametrize("n", [2, 3, 5])
def test_one_spin_draws_in_single_precision(n: int) -> None:
    for scale in (0.0, 1e-30, 1.0, 1e4):
        h = scale * torch.randn(3, 1000, n, generator=generator())
        s = von_mises_fisher(h, generator(2))
        assert s.dtype == torch.float32
        assert (s.norm(dim=-1) - 1).abs().max() < 1e-6
    poles = torch.eye(n, dtype=torch.float64)
    along = torch.cat([poles, -poles])
    assert ((von_mises_fisher(1e4 * along, generator()) * along).sum(-1) > 0.99).all()
    assert von_mises_fisher(torch.full((2, n), math.nan), generator()).isnan().all()


def test_one_clock_draws() -> None:
    logits = torch.tensor([0.3, -math.inf, 1.0, -0.5], dtype=torch.float64)
    drawn = torch.nn.functional.one_hot(categorical(logits.expand(20000, 4), generator()), 4).double()
    assert drawn[:, 1].sum() == 0
    law.within(drawn[:, [0, 2, 3]], logits.softmax(0)[[0, 2, 3]], "frequencies")


def test_sites_that_move_together_are_no_neighbours() -> None:
    for extents in [(1,), (2,), (3,), (1, 4), (2, 3), (5, 3), (4, 4, 2), (3, 3, 3)]:
        found = parts(extents)
        assert torch.equal(torch.cat([part.sites for part in found]).sort().values, torch.arange(math.prod(extents)))
        assert len(found) <= (3 if any(n % 2 and n > 1 for n in extents) else 2)
        for part in found:
            strangers = part.neighbours[part.neighbours != part.sites[:, None]]  # all but an axis of one site
            assert not torch.isin(strangers, part.sites).any()


@pytest.mark.parametrize("action", [XY((2, 3), 0.9), ON((4, 4), 3, 1.1), ON((3,), 4, -0.5)], ids=str)
def test_overrelaxation_keeps_the_action_and_moves_far(action: Action) -> None:
    kernel, field = VectorHeatBath(action), action.field
    x = field.random(8, generator())
    vectors = unit_vectors(field, x)
    s = vectors.flatten(1, -2).movedim(0, 1).clone(memory_format=torch.contiguous_format)
    for part in parts(field.lattice.extents):
        h, before = kernel._molecular_field(s, part), s[part.sites]
        s[part.sites] = overrelaxed(before, h)
        torch.testing.assert_close(overrelaxed(s[part.sites], h), before)
        assert (s[part.sites] - before).abs().mean() > 0.1
    y = from_vectors(field, s.movedim(1, 0).reshape(vectors.shape))
    torch.testing.assert_close(action.energy(y), action.energy(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(s.norm(dim=-1), torch.ones_like(s[..., 0]))
    alone = torch.zeros_like(s)
    torch.testing.assert_close(overrelaxed(s, alone), -s)


@pytest.mark.parametrize("name", ["O(3)", "XY odd", "clock of 5"])
@pytest.mark.parametrize("make", [EmbeddedSwendsenWang, EmbeddedWolff])
def test_improved_estimator(name: str, make: Callable[[Action], EmbeddedClusters]) -> None:
    """The structure factor of clusters has the mean of |Σ e^{ikx} s_x|² / V."""
    action = SMALL[name]
    field, kernel, x = action.field, make(action), exact_samples(action, 3000)
    law.within(kernel.structure_factor(x, generator()) - magnetisation(field, x), 0.0, f"{kernel} at k = 0")
    axes = tuple(range(1, 1 + field.lattice.dimension))
    power = torch.fft.fftn(unit_vectors(field, x), dim=axes).abs().square().sum(-1).flatten(1)
    momentum = (*[0] * (field.lattice.dimension - 1), 1)
    found = kernel.structure_factor(x, generator(), momentum)
    law.within(found - power[:, 1] / field.lattice.volume, 0.0, f"{kernel} at the smallest k")
    with pytest.raises(AssertionError, match="standard errors"):
        law.within(found - magnetisation(field, x), 0.0, "another momentum")


def test_improved_estimator_is_less_noisy() -> None:
    action = XY((16, 16), 0.3)
    kernel = EmbeddedSwendsenWang(action)
    x = run(kernel, kernel.init(action.field.random(200, generator())), 40, generator(2)).state.x
    improved = kernel.structure_factor(x, generator(3))
    assert improved.std() < 0.5 * magnetisation(action.field, x).std()


# ------------------------------------------------------------------------------------------- flows as samplers


def test_spheres_in_latent_space() -> None:
    """Latent HMC, proposals of a flow and annealing of O(3) on a ring of two, whose log Z is known."""
    layer = Mobius()
    action = ON((2,), 3, 0.8)
    pulled_back, flow = PulledBack(action, layer), Transformed(White(action.field), layer)
    law.reversible(pulled_back, INTEGRATORS["leapfrog"])
    law.order(pulled_back, INTEGRATORS["leapfrog"], 8)
    stays_exact(Latent(pulled_back, HMC(pulled_back, 0.4, 4, jitter=0.2)), action, 1000)
    stays_exact(IndependenceMetropolis(action, flow, block=4), action, 2000, 6)
    law.reversible(Density(flow), INTEGRATORS["omf2"])
    sampler = Annealing(flow, action, lambda a: HMC(a, 0.5, 2, jitter=0.2), n_stages=4)
    samples = sampler.sample(800, generator(), lambda x: {"S": action.energy(x)})
    assert abs(samples.log_z().z_score(spin_ring(on_link(3, 0.8), 2).log_z)) < law.LIMIT
    assert abs(samples.estimates()["S"].z_score(exact_energy(action))) < law.LIMIT


def test_couplings_are_read_off() -> None:
    assert spin_couplings(XY((2, 3), 0.7)) == pytest.approx((0.7, 0.7))
    assert spin_couplings(ON((1, 4), 4, -0.2)) == pytest.approx((0.0, -0.2))
    assert spin_couplings(Clock((4, 2, 3), 3, 1.3)) == pytest.approx((1.3,) * 3)
    stripes = XY((4, 4), 0.5) + 0.2 * XY((4, 4), 1.0)
    assert EmbeddedWolff(stripes).couplings == pytest.approx((0.7, 0.7))


def test_kernels_recommended_for_spins() -> None:
    for action in (XY((4, 4), 1.1), ON((3, 3), 3, 1.2), Clock((4, 4), 6, 1.0)):
        kernel = sampler_for(action)
        assert isinstance(kernel, Composite)
        assert isinstance(kernel.kernels[0], EmbeddedSwendsenWang)
        assert equilibrated(action, 16, 5, generator(), 30).shape == (16, 5, *action.field.event_shape)
    for other in (
        XY((4, 4), 1.1, crystal=0.3),
        Density(White(FieldSpace(Lattice((2,)), Sphere(2)))) + ON((2,), 3, 1.0),
    ):
        assert isinstance(sampler_for(other), Kernel)
    assert isinstance(sampler_for(XY((4, 4), 1.1, crystal=0.3)), HMC)


@pytest.mark.parametrize("make", [*kernels().values()], ids=kernels())
def test_single_precision(make: Make) -> None:
    for action in (XY((4, 4), 1.1), ON((4, 3), 3, 1.2)):
        kernel = make(action)
        law.well_formed(kernel, action.field, torch.float32)


@pytest.mark.parametrize("make", [EmbeddedSwendsenWang, EmbeddedWolff, VectorHeatBath, ClockHeatBath])
@pytest.mark.parametrize(
    "action",
    [
        XY((4, 4), 1.0, crystal=0.5),
        XY((4, 4), 0.0, crystal=0.5, directions=2),
        XY((4, 4), 1.0) + XY((4, 4), 0.2, crystal=-0.1),
        Phi4((4, 4), 1.0, 1.0),
        Ising((4, 4), 0.3),
        U1Gauge((4, 4), 1.0),
    ],
    ids=str,
)
def test_other_actions_are_refused_with_advice(make: Make, action: Action) -> None:
    with pytest.raises(ValueError, match=r"expected .*, got .*use .*HMC"):
        make(action)


BAD: dict[str, Callable[[], object]] = {
    "clock without clock": lambda: ClockHeatBath(XY((4, 4), 1.0)),
    "vectors of a clock": lambda: VectorHeatBath(Clock((4, 4), 4, 1.0)),
    "negative sweeps": lambda: VectorHeatBath(XY((4, 4), 1.0), -1),
    "half a sweep": lambda: VectorHeatBath(XY((4, 4), 1.0), 0.5),  # type: ignore[arg-type]
    "HMC of a clock": lambda: HMC(Clock((4, 4), 4, 1.0), 0.1, 3),
    "signs": lambda: von_mises_fisher(torch.ones(4, 1), generator()),
    "momentum of one axis": lambda: EmbeddedWolff(ON((2, 2), 3, 1.0)).structure_factor(
        ON((2, 2), 3, 1.0).field.random(2, generator()), generator(), (1,)
    ),
    "off the sphere": lambda: HMC(ON((2, 2), 3, 1.0), 0.1, 3).init(torch.ones(1, 2, 2, 3)),
    "not a number": lambda: EmbeddedWolff(ON((2, 2), 3, 1.0)).init(torch.full((1, 2, 2, 3), math.nan)),
    "wrong shape": lambda: VectorHeatBath(ON((2, 2), 3, 1.0)).init(torch.ones(1, 2, 2)),
    "between two states": lambda: ClockHeatBath(Clock((2, 2), 4, 1.0)).init(torch.full((1, 2, 2), 0.3)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_advice(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*got .*: "):
        BAD[name]()
