"""Cluster updates of the real fields of `IsingDual` and `PottsDual`, by way of the spins they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from flows.sampling.cluster import joined
from flows.sampling.kernel import Info, Kernel, State
from flows.sampling.metropolis import idle
from lattices.invariance import simplex
from lattices.theories.bonds import BONDS, BondMatrix, half_grid
from lattices.theories.ising_dual import IsingDual
from lattices.theories.neighbours import Displacement, forward_sum
from lattices.theories.potts_dual import PottsDual

Bond = tuple[float, Displacement]  # a coupling, and where it leads


@dataclass(frozen=True)
class DualCluster(Kernel):
    """Draw the spins of a dual field, update them cluster by cluster, and draw the field given the spins.

        s ~ p(s | x) ∝ Π_i exp(s_i·(x_i + h));    Swendsen–Wang on exp(½ sᵀK s + h Σ s);    x ~ N(K̃ s, K̃)

    Each part leaves p(x, s) ∝ exp(-½ x·K̃⁻¹x + Σ s·(x + h)) invariant, so a step is exact, for either sign of every
    coupling, nearest or diagonal. In a field a cluster turns up with its weight e^{hM}. Potts: new colours for
    clusters of one colour if all couplings are ≥ 0, otherwise clusters of two random colours exchange them.
    Whole chains decorrelate in a few steps at criticality, where HMC slows down. Cost V log V, on the CPU mostly.

    Args:
        action: `IsingDual` or `PottsDual`.
        n_sweeps: cluster updates of the spins between two draws of the field.

    References:
        R. H. Swendsen, J.-S. Wang, Phys. Rev. Lett. 58 (1987) 86; J.-S. Wang, R. H. Swendsen, R. Kotecký, ibid. 63
        (1989) 109 (exchange of two colours).
    """

    action: IsingDual | PottsDual
    n_sweeps: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.action, (IsingDual, PottsDual)):
            raise TypeError(f"expected IsingDual or PottsDual, got {self.action}: `sampler_for` finds its kernel")
        if type(self.n_sweeps) is not int or self.n_sweeps < 1:
            raise ValueError(f"expected a whole n_sweeps >= 1, got {self.n_sweeps}: try 1")

    def init(self, x: Tensor) -> State:
        x = self.action.field.validate(x)
        return State(x, self.action.energy(x))

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        action, x, n = self.action, state.x, self.n_sweeps
        spins = _ising(action, x, n, generator) if isinstance(action, IsingDual) else _potts(action, x, n, generator)
        x = _field_given(action, spins, generator)
        return State(x, action.energy(x)), idle(x)

    @classmethod
    def examples(cls) -> Iterator[DualCluster]:
        """Ising with diagonal bonds in a field, its antiferromagnet, and Potts with either sign of the coupling."""
        yield cls(IsingDual((4, 4), 0.3, diagonal=-0.1, uniform_field=0.2), n_sweeps=2)
        yield cls(IsingDual((2, 3), -0.2))
        yield cls(PottsDual((2, 3), 0.8, diagonal=0.1))
        yield cls(PottsDual((6,), -0.5))


def flip_clusters(s: Tensor, bonds: list[Bond], uniform_field: float, generator: torch.Generator) -> Tensor:
    """One Swendsen–Wang update of S = -Σ K s_i s_j - h Σ s: clusters turn up with probability 1 / (1 + e^{-2hM}).

    Shape: (chains, *extents) of ±1, or 0 where there is no spin -> the same.
    """
    gains = [2 * coupling * s * forward_sum(s, [bond]) for coupling, bond in bonds]
    labels, n = joined(gains, [bond for _, bond in bonds], generator)
    chance: Tensor | float = 0.5
    if uniform_field:
        magnetisation = s.new_zeros(n, dtype=torch.float64).index_add_(0, labels.flatten(), s.flatten().double())
        chance = torch.sigmoid(2 * uniform_field * magnetisation)
    kept = torch.rand(n, generator=generator, dtype=torch.float64, device=s.device) < chance
    return s * (2 * kept.to(s.dtype) - 1)[labels]


def recolour_clusters(states: Tensor, bonds: list[Bond], q: int, generator: torch.Generator) -> Tensor:
    """One Swendsen–Wang update of S = -Σ K δ(s_i, s_j) with K ≥ 0: a new colour out of 0 … q-1 for each cluster.

    Shape: (chains, *extents), whole numbers -> the same.
    """
    gains = [coupling * (states == forward_sum(states, [bond])).float() for coupling, bond in bonds]
    labels, n = joined(gains, [bond for _, bond in bonds], generator)
    return torch.randint(q, (n,), generator=generator, device=states.device)[labels]


def exchange_colours(states: Tensor, bonds: list[Bond], q: int, generator: torch.Generator) -> Tensor:
    """Two colours, random in each chain, are the spins ±1 of an Ising model of couplings K/2: its clusters flip.

    Shape: (chains, *extents), whole numbers -> the same.
    """
    order = torch.rand(len(states), q, generator=generator, device=states.device).argsort(1)
    up, down = order[:, :2].reshape(-1, 2, *[1] * (states.ndim - 1)).unbind(1)
    before = (states == up).float() - (states == down).float()
    after = flip_clusters(before, [(coupling / 2, bond) for coupling, bond in bonds], 0.0, generator)
    return torch.where(after == 0, states, torch.where(after > 0, up, down))


def _ising(action: IsingDual, x: Tensor, n_sweeps: int, generator: torch.Generator) -> Tensor:
    """Spins ±1 after n_sweeps, as the vectors that x couples to."""
    spins, bonds = action.sample_spins(x, generator).float(), _bonds(action)
    for _ in range(n_sweeps):
        spins = flip_clusters(spins, bonds, action.uniform_field, generator)
    return spins.to(x.dtype)


def _potts(action: PottsDual, x: Tensor, n_sweeps: int, generator: torch.Generator) -> Tensor:
    """The corners e_s of the states after n_sweeps, as the vectors that x couples to."""
    corners, bonds = simplex(action.q).to(x), _bonds(action)
    update = recolour_clusters if all(coupling >= 0 for coupling, _ in bonds) else exchange_colours
    states = _draw((x @ corners.mT).softmax(-1), generator)
    for _ in range(n_sweeps):
        states = update(states, bonds, action.q, generator)
    return corners[states]


def _draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:  # (..., q) -> (...)
    """A state for each row, by its distribution function: ten times as fast as `torch.multinomial`."""
    shape = (*probabilities.shape[:-1], 1)
    uniform = torch.rand(shape, generator=generator, dtype=probabilities.dtype, device=probabilities.device)
    return (uniform > probabilities.cumsum(-1)[..., :-1]).sum(-1)


def _bonds(action: IsingDual | PottsDual) -> list[Bond]:
    """Every bond that starts at a site, with its coupling."""
    couplings = {"nearest": action.coupling, "diagonal": action.diagonal}
    d = len(action.extents)
    return [(K, bond) for name, K in couplings.items() if K or name == "nearest" for bond in BONDS[name](d)]


def _field_given(action: IsingDual | PottsDual, spins: Tensor, generator: torch.Generator) -> Tensor:
    """K̃ s + √K̃ ξ with white noise ξ: the Gaussian N(K̃ s, K̃), by FFT."""
    axes, sizes = action.field.lattice_axes, action.extents
    noise = torch.randn(spins.shape, generator=generator, dtype=spins.dtype, device=spins.device)
    spectrum = _half_spectrum(action, spins.dtype, spins.device)
    modes = spectrum * torch.fft.rfftn(spins, dim=axes) + spectrum.sqrt() * torch.fft.rfftn(noise, dim=axes)
    return torch.fft.irfftn(modes, s=sizes, dim=axes)


@lru_cache(maxsize=16)
def _half_spectrum(action: IsingDual | PottsDual, dtype: torch.dtype, device: torch.device) -> Tensor:
    """K̃(k) = K(k) - min K + margin on the half grid of `rfftn`, with an axis more for vectors."""
    scale = (action.q - 1) / action.q if isinstance(action, PottsDual) else 1.0
    couplings = torch.tensor([action.coupling, action.diagonal], dtype=torch.float64)
    bonds = BondMatrix(action.extents, tuple(BONDS), 0.0, scale)
    spectrum = half_grid(bonds.spectrum(couplings) - bonds.smallest(couplings) + action.margin)
    return spectrum.reshape(*spectrum.shape, *[1] * len(action.field.target.shape)).to(device, dtype)
