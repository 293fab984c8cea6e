"""Cluster updates of dual fields, and the kernels we recommend: against enumeration, quadrature and exact samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flows.sampling.choice import _require_agreement, equilibrated, mixed_start, sampler_for
from flows.sampling.cluster import SwendsenWang, joined
from flows.sampling.composite import Composite
from flows.sampling.dual import DualCluster
from flows.sampling.hmc import HMC
from lattices.action import Action
from lattices.exact import ising_enumeration, phi4_moments, potts_enumeration
from lattices.invariance import simplex
from lattices.theories.bonds import BONDS
from lattices.theories.families import phi4_form_d
from lattices.theories.ising import Ising
from lattices.theories.ising_dual import IsingDual
from lattices.theories.phi4 import Phi4
from lattices.theories.potts_dual import PottsDual
from lattices.theories.scalar import Scalar
from tests.laws import kernels as law
from tests.laws.kernels import generator

Dual = IsingDual | PottsDual
DUALS: list[Dual] = [
    IsingDual((4, 4), 0.440687),
    IsingDual((4, 4), 0.3, diagonal=-0.1, uniform_field=0.05),
    IsingDual((2, 3), -0.2, diagonal=0.15, uniform_field=-0.2),
    IsingDual((5,), 0.7),
    PottsDual((3, 3), 0.8),
    PottsDual((2, 3), 0.5, diagonal=0.1, margin=0.6),
    PottsDual((2, 3), -0.4, diagonal=0.2),
    PottsDual((2, 2), 0.3, q=5),
]


class Oracle:
    """A dual action by enumeration: the matrix K with all its bonds, K̃ = K + α, and e^{½ s·Ks + h Σ s} of all spins."""

    def __init__(self, action: Dual) -> None:
        self.action, self.volume = action, action.field.lattice.volume
        self.q, self.h = (2, action.uniform_field) if isinstance(action, IsingDual) else (action.q, 0.0)
        self.corners = simplex(self.q)
        self.K = self._bond_matrix() * (1 if isinstance(action, IsingDual) else (self.q - 1) / self.q)
        alpha = action.margin - torch.linalg.eigvalsh(self.K)[0]
        self.K_tilde = self.K + alpha * torch.eye(self.volume, dtype=torch.float64)
        states = torch.tensor(list(itertools.product(range(self.q), repeat=self.volume)))
        self.spins = self.corners[states]  # (q^V, V, q - 1)
        self.probabilities = self.weight(self.spins).softmax(0)

    def _bond_matrix(self) -> Tensor:
        extents, K = self.action.extents, torch.zeros(self.volume, self.volume, dtype=torch.float64)
        sites = torch.arange(self.volume).reshape(extents)
        for name, coupling in ("nearest", self.action.coupling), ("diagonal", self.action.diagonal):
            for steps, axes in BONDS[name](len(extents)):
                ends = sites.roll([-n for n in steps], axes).flatten()
                for i, j in enumerate(ends.tolist()):
                    K[i, j] += coupling
                    K[j, i] += coupling
        return K

    def weight(self, spins: Tensor) -> Tensor:  # (n, V, q - 1) -> (n,)
        return 0.5 * (spins * (self.K @ spins)).sum((1, 2)) + self.h * spins.sum((1, 2))

    def sample(self, n: int, seed: int = 1) -> Tensor:
        """Exact and independent fields."""
        spins = self.spins[torch.multinomial(self.probabilities, n, True, generator=generator(seed))]
        noise = torch.randn(spins.shape, generator=generator(seed + 1), dtype=torch.float64)
        return (self.K_tilde @ spins + torch.linalg.cholesky(self.K_tilde) @ noise).reshape(n, *self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.action.field.event_shape

    def spins_given(self, x: Tensor) -> Tensor:  # -> (n, V, q - 1)
        spins = self.action.sample_spins(x, generator(7))
        return (spins if isinstance(self.action, IsingDual) else self.corners[spins]).reshape(len(x), self.volume, -1)


def moments(oracle: Oracle, spins: Tensor) -> Tensor:  # (n, V, q - 1) -> (n, 4)
    """½ s·Ks + h Σ s and its square, |M|² and |M|⁴."""
    weight, square = oracle.weight(spins), spins.sum(1).square().sum(-1)
    return torch.stack([weight, weight**2, square, square**2], 1)


def distributed(oracle: Oracle, x: Tensor, name: str) -> None:
    """Independent fields x have ⟨x⟩ = K̃⟨s⟩, ⟨x_i·x_j⟩ = (q - 1) K̃ + K̃⟨s s⟩K̃, and spins with the right moments."""
    p, K = oracle.probabilities, oracle.K_tilde
    fields = x.reshape(len(x), oracle.volume, -1)
    law.within(fields.mean(1), torch.einsum("n,nic->ic", p, K @ oracle.spins).mean(0), f"{name}: ⟨x⟩")
    exact = fields.shape[-1] * K + K @ torch.einsum("n,nic,njc->ij", p, oracle.spins, oracle.spins) @ K
    _, vectors = torch.linalg.eigh(K)
    power = (vectors.mT @ fields).square().sum(-1)
    law.within(power, (vectors.mT @ exact @ vectors).diagonal(), f"{name}: ⟨x x⟩")
    law.within(moments(oracle, oracle.spins_given(x)), p @ moments(oracle, oracle.spins), f"{name}: spins")


def after(kernel: DualCluster, x: Tensor, n_steps: int) -> Tensor:
    state = kernel.init(x)
    for seed in range(n_steps):
        state, _ = kernel.step(state, generator(seed))
    return state.x


@pytest.mark.parametrize("action", DUALS, ids=str)
def test_exact_samples_stay_exact(action: Dual) -> None:
    oracle = Oracle(action)
    x = oracle.sample(4000)
    distributed(oracle, x, "the oracle")
    distributed(oracle, after(DualCluster(action), x, 2), f"{action}")


@pytest.mark.parametrize("action", DUALS[1:3] + DUALS[5:7], ids=str)
def test_chains_find_their_distribution(action: Dual) -> None:
    """From a start of broken symmetry, and in single precision, in thirty sweeps."""
    x = torch.full((4000, *action.field.event_shape), 3.0, dtype=torch.float32)
    distributed(Oracle(action), after(DualCluster(action, n_sweeps=2), x, 15).double(), f"{action}")


@pytest.mark.parametrize(
    "wrong",
    [
        replace(DUALS[1], coupling=0.33),
        replace(DUALS[1], diagonal=-0.07),
        replace(DUALS[1], uniform_field=0.08),
        replace(DUALS[1], margin=0.35),
    ],
    ids=str,
)
def test_wrong_couplings_are_seen(wrong: IsingDual) -> None:
    oracle = Oracle(DUALS[1])
    with pytest.raises(AssertionError, match="exact value"):
        distributed(oracle, after(DualCluster(wrong), oracle.sample(4000), 3), "wrong")


def test_wrong_colours_are_seen() -> None:
    oracle = Oracle(DUALS[6])
    with pytest.raises(AssertionError, match="exact value"):
        distributed(oracle, after(DualCluster(replace(DUALS[6], diagonal=0.3)), oracle.sample(4000), 3), "wrong")


def test_clusters_are_joined_by_certain_bonds_and_stay_in_their_chain() -> None:
    gain = torch.zeros(2, 3, 4)
    gain[1] = 1e9
    labels, n = joined([gain], [((1, 1), (-2, -1))], generator())  # the diagonal of 3×4 visits every site
    assert n == 13
    assert labels[1].unique().numel() == 1
    assert labels[0].unique().numel() == 12
    assert joined([-gain], [((1,), (-1,))], generator())[1] == 24


# ------------------------------------------------------------------------------------------- the kernels we recommend

FORM_D = phi4_form_d((4, 4)).at(torch.tensor([0.68, 1.0], dtype=torch.float64))
RECOMMENDED: list[tuple[Action, type]] = [
    (IsingDual((4, 4), 0.3), DualCluster),
    (PottsDual((2, 3), 0.3), DualCluster),
    (Ising((4, 4), 0.3), SwendsenWang),
    (Phi4((4, 4), -4.0, 8.0), Composite),
    (FORM_D, Composite),
    (Scalar((3, 5), sextic=1.0), Composite),
    (Scalar((4, 4), quartic=1.0, diagonal=0.2), HMC),
    (Scalar((4, 4), quartic=1.0, source=0.2), HMC),
    (0.5 * PottsDual((2, 3), 0.3), HMC),
]


@pytest.mark.parametrize(("action", "kind"), RECOMMENDED, ids=str)
def test_recommended_kernels_take_steps(action: Action, kind: type) -> None:
    kernel = sampler_for(action)
    assert isinstance(kernel, kind)
    kernel, state = kernel.adapt(kernel.init(mixed_start(action, 40, generator())), 60, generator(2))
    _, info = kernel.step(kernel.init(state.x), generator(3))
    assert info.accepted.mean() > 0.5


def averages(action: Action, n_chains: int, measure: Callable[[Tensor], Tensor]) -> Tensor:  # -> (chains, n)
    """Means over samples of every chain of what `measure` finds in each."""
    x = equilibrated(action, n_chains, 4, generator(), n_warm_up=80, spacing=4)
    assert x.shape == (n_chains, 4, *action.field.event_shape)
    return torch.stack([measure(each) for each in x.unbind(1)], 1).mean(1)


@pytest.mark.parametrize("coupling", [0.440687, 0.3])
def test_ising_samples(coupling: float) -> None:
    action, exact = IsingDual((4, 4), coupling), ising_enumeration((4, 4), coupling)

    def measure(x: Tensor) -> Tensor:
        s = action.sample_spins(x, generator(5))
        bonds = -(s * (s.roll(1, 1) + s.roll(1, 2))).mean((1, 2))
        return torch.stack([bonds, s.mean((1, 2)).square()], 1)

    reference = torch.tensor([exact.energy, exact.magnetisation_squared], dtype=torch.float64)
    found = averages(action, 500, measure)
    law.within(found, reference, "Ising")
    wrong = ising_enumeration((4, 4), 1.05 * coupling)
    with pytest.raises(AssertionError, match="exact value"):
        law.within(found, torch.tensor([wrong.energy, wrong.magnetisation_squared]), "Ising")


def test_potts_samples() -> None:
    action, exact = PottsDual((3, 3), 0.9), potts_enumeration((3, 3), 0.9, 3)

    def measure(x: Tensor) -> Tensor:
        s = action.sample_spins(x, generator(5))
        bonds = -sum((s == s.roll(1, axis)).double().mean((1, 2)) for axis in (1, 2))
        return torch.stack([torch.as_tensor(bonds), simplex(3)[s].mean((1, 2)).square().sum(1)], 1)

    reference = torch.tensor([exact.energy, exact.magnetisation_squared], dtype=torch.float64)
    law.within(averages(action, 300, measure), reference, "Potts")


@pytest.mark.parametrize("extents", [(2, 2), (3, 3)])
def test_phi4_samples(extents: tuple[int, ...]) -> None:
    action, exact = Phi4(extents, -4.0, 8.0), phi4_moments(extents, -4.0, 8.0)

    def measure(x: Tensor) -> Tensor:
        return torch.stack([x.square().flatten(1).mean(1), x.pow(4).flatten(1).mean(1), x.flatten(1).mean(1)], 1)

    reference = torch.tensor([exact.phi_squared, exact.phi_fourth, 0.0], dtype=torch.float64)
    law.within(averages(action, 500, measure), reference, "φ⁴")


def test_vector_fields_go_through_hmc() -> None:
    """S and x·∂S are the same for any kernel of a Potts dual; Schwinger–Dyson: ⟨x·∂S⟩ = number of components."""
    action = 1.0 * PottsDual((2, 3), 0.5)
    assert isinstance(sampler_for(action), HMC)
    found = averages(action, 200, lambda x: -(x * action.force(x)).flatten(1).sum(1)[:, None])
    law.within(found, 12.0, "x·∂S")


def test_samples_continue_from_given_fields_in_their_dtype() -> None:
    action = IsingDual((4, 4), 0.3)
    start = Oracle(action).sample(400)
    x = equilibrated(action, start.float(), 1, generator(), n_warm_up=1, spacing=1)
    assert (x.shape, x.dtype) == ((400, 1, 4, 4), torch.float32)
    distributed(Oracle(action), x[:, 0].double(), "samples")


def test_what_is_not_in_equilibrium_is_refused() -> None:
    far, ordered = 4 * FORM_D.field.random(64, generator()), 1.0 * IsingDual((8, 8), 0.6)
    with pytest.raises(RuntimeError, match=r"early and late.*n_warm_up"):  # half of the chains are stuck at first
        equilibrated(FORM_D, far, 2, generator(), n_warm_up=1, spacing=1)
    with pytest.raises(RuntimeError, match="acceptance"):
        equilibrated(FORM_D, 20 * far, 2, generator(), n_warm_up=1, spacing=1)
    with pytest.raises(RuntimeError, match="hot and cold"):  # HMC is slow here
        equilibrated(ordered, 64, 1, generator(), n_warm_up=10, spacing=1)
    with pytest.raises(RuntimeError, match="nan"):
        _require_agreement(torch.zeros(20, 4, 2), None)


def test_hot_and_cold_starts() -> None:
    x = mixed_start(PottsDual((4, 4), 0.5), 7, generator())
    hot, cold = x[:4], x[4:]
    assert x.shape == (7, 4, 4, 2)
    assert torch.equal(cold, cold[:, :1, :1].expand_as(cold))
    assert (hot.flatten(1, 2).std(1) > 0.1).all()
    assert mixed_start(Ising((4, 4), 0.3), 5, generator()).abs().eq(1).all()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: equilibrated(DUALS[0], 8, 2, generator()), "16 chains"),
        (lambda: equilibrated(DUALS[0], 16, 0, generator()), "n_samples"),
        (lambda: equilibrated(DUALS[0], 16, 1, generator(), spacing=0), "spacing"),
        (lambda: DualCluster(Phi4((4, 4), 1.0, 1.0)), "IsingDual or PottsDual"),  # type: ignore[arg-type]
        (lambda: DualCluster(DUALS[0], n_sweeps=0), "n_sweeps >= 1"),
        (lambda: DualCluster(DUALS[0]).init(torch.zeros(4, 4)), "batch axis"),
        (lambda: DualCluster(DUALS[0]).init(torch.full((1, 4, 4), math.nan)), "finite"),
    ],
)
def test_wrong_arguments(make: Callable[[], object], reason: str) -> None:
    with pytest.raises((TypeError, ValueError), match=reason):
        make()


def test_a_chain_that_is_stuck_far_out_is_refused() -> None:
    """One lattice so far out that no trajectory of the tuned kernel survives there; the others are fine."""
    action = phi4_form_d((4, 4)).at(torch.tensor([0.6, 1.0], dtype=torch.float64))
    start = mixed_start(action, 32, torch.Generator().manual_seed(0))
    equilibrated(action, start, 20, torch.Generator().manual_seed(1), n_warm_up=100, spacing=2)
    start[0] = 300.0
    with pytest.raises(RuntimeError, match="1 of 32"):
        equilibrated(action, start, 20, torch.Generator().manual_seed(1), n_warm_up=100, spacing=2)
