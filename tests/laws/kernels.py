"""Laws of Markov kernels: each raises AssertionError, naming the kernel that breaks it."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from flows.bases import GaussianField
from flows.sampling.hmc import HMC
from flows.sampling.integrators import Integrator, Phase, trajectory
from flows.sampling.kernel import Kernel
from flows.sampling.nested import hamiltonian
from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Links, Real
from lattices.theories.free_field import FreeField

Actions = tuple[Action, ...]

LIMIT = 4.0  # standard errors


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def within(samples: Tensor, exact: float | Tensor, name: str) -> None:
    """Means over the first axis of independent samples agree with exact values within four standard errors."""
    error = samples.std(0) / math.sqrt(len(samples))
    z = ((samples.mean(0) - exact) / error).abs().max().item()
    assert z < LIMIT, f"{name}: {z:.1f} standard errors from the exact value"


def well_formed(kernel: Kernel, field: FieldSpace, dtype: torch.dtype = torch.float64) -> None:
    """Shapes, dtypes, reproducibility, a state whose energy is that of its field, no change of the input."""
    x = field.random(3, generator(), dtype)
    dtype, before = x.dtype, x.clone()
    state = kernel.init(x)
    results = [kernel.step(state, generator(2)) for _ in range(2)]
    (new, info), (again, _) = results
    assert torch.equal(x, before), f"{kernel} changes its input"
    assert torch.equal(new.x, again.x), f"{kernel} draws from elsewhere than the generator"
    assert (new.x.shape, new.x.dtype) == (x.shape, dtype), f"{kernel}: shape or dtype of x"
    assert (new.energy.shape, new.energy.requires_grad, new.x.requires_grad) == ((3,), False, False), (
        f"{kernel}: energy"
    )
    assert torch.allclose(new.energy, kernel.init(new.x).energy, rtol=1e-4), f"{kernel}: energy is not that of x"
    assert (new.energy.dtype, field.contains(new.x).all()) == (dtype.to_real(), True), f"{kernel} leaves the manifold"
    for value in info:
        assert (value.shape, value.dtype) == ((3,), torch.float64), f"{kernel}: {info}"
    assert ((info.accepted >= 0) & (info.accepted <= 1)).all(), f"{kernel}: acceptance {info.accepted}"
    before = new.x.clone()
    kernel.adapt(state, 2, generator(3))[0].step(new, generator(4))
    assert torch.equal(new.x, before), f"{kernel} changes its own states"


def spin_states(field: FieldSpace) -> Tensor:  # -> (2^V, *extents)
    """All configurations of spins ±1; number i has the bits of i, the last site first."""
    states = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=field.lattice.volume)), dtype=torch.float64)
    return states.reshape(-1, *field.event_shape)


def transition_counts(kernel: Kernel, field: FieldSpace, n: int) -> Tensor:  # -> (2^V, 2^V)
    """How many of n chains per state go from each state (row) to each state (column) in one step."""
    states = spin_states(field)
    state, _ = kernel.step(kernel.init(states.repeat_interleave(n, 0)), generator())
    bits = (state.x.flatten(1) > 0).long()
    codes = (bits * 2 ** torch.arange(bits.shape[1]).flip(0)).sum(1)
    pairs = torch.arange(len(states)).repeat_interleave(n) * len(states) + codes
    return pairs.bincount(minlength=len(states) ** 2).reshape(len(states), -1).double()


def probabilities(action: Action) -> Tensor:  # -> (2^V,)
    """e^{-S}/Z of every spin configuration."""
    return (-action.energy(spin_states(action.field))).softmax(0)


def stationary(kernel: Kernel, action: Action, n: int = 4000) -> None:
    """Σ_i π_i T_ij = π_j for every state of an enumerable space, within the errors of the counted T."""
    pi, rows = probabilities(action), transition_counts(kernel, action.field, n) / n
    chance = (n * rows + 0.5) / (n + 1)  # keeps the error of a count of 0 or n above zero
    error = (pi[:, None] ** 2 * chance * (1 - chance) / n).sum(0).sqrt()
    z = ((pi @ rows - pi) / error).abs().max().item()
    assert z < LIMIT, f"{kernel}: the stationary law moves by {z:.1f} standard errors"


def detailed_balance(kernel: Kernel, action: Action, n: int = 4000) -> None:
    """π_i T_ij = π_j T_ji for every pair of states; one count more in each cell bounds the errors from below."""
    pi, counts = probabilities(action), transition_counts(kernel, action.field, n)
    flow, variance = pi[:, None] * counts / n, pi[:, None] ** 2 * (counts + 1) / n**2
    z = ((flow - flow.T) / (variance + variance.T).sqrt()).abs().max().item()
    assert z < LIMIT + 0.5, f"{kernel}: detailed balance fails by {z:.1f} standard errors"


def ergodic(kernel: Kernel, action: Action, n: int = 400) -> None:
    """Some power of T connects every state to every other."""
    reach = transition_counts(kernel, action.field, n) > 0
    for _ in range(5):
        reach = (reach.double() @ reach.double()) > 0
    assert reach.all(), f"{kernel} does not reach {(~reach).sum()} pairs of states"


def whole(action: Action | Actions) -> Action:
    """The sum of the parts."""
    return action if isinstance(action, Action) else sum(action[1:], start=action[0])


def energy_and_momentum(action: Action, point: Phase) -> Tensor:  # -> (n,)
    return hamiltonian(action.field, action.energy(point.x), point.momentum)


def thermal(action: Action | Actions, n: int) -> Phase:
    """Points of phase space near equilibrium, with the forces of all parts."""
    total = whole(action)
    kernel, x = HMC(total, 0.05, 20), total.field.random(n, generator())
    state = kernel.init(0.3 * x if isinstance(total.field.target, Real) else x)
    for seed in range(10):
        state, _ = kernel.step(state, generator(seed))
    momentum = total.field.target.normal(state.x, generator(11))
    return Phase(state.x, momentum, tuple(part.force(state.x) for part in parts(action)))


def parts(action: Action | Actions) -> Actions:
    return (action,) if isinstance(action, Action) else action


def levels(action: Action | Actions, n_steps: int) -> tuple[int, ...]:
    """n_steps of the slowest part, three of each further one."""
    return (n_steps, *[3] * (len(parts(action)) - 1))


def distance(field: FieldSpace, x: Tensor, y: Tensor) -> float:
    """The largest difference, of angles as points of the circle."""
    angles = isinstance(field.target, Circle | Links) and not x.is_complex()
    x, y = (torch.polar(torch.ones_like(z), z) if angles else z for z in (x, y))
    return (x - y).abs().max().item()


def reversible(action: Action | Actions, method: Integrator) -> None:
    """Forward, momentum flipped, forward again: back at the start."""
    start = thermal(action, 4)
    end = trajectory(parts(action), start, 0.1, levels(action, 10), method)
    flipped = end._replace(momentum=-end.momentum)
    back = trajectory(parts(action), flipped, 0.1, levels(action, 10), method)
    moved, gap = (distance(whole(action).field, point.x, start.x) for point in (end, back))
    gap = max(gap, (back.momentum + start.momentum).abs().max().item())
    assert moved > 0.1, f"{method} does not move"
    assert gap < 1e-11, f"{method} misses its start by {gap:.1e}"


def energy_error(action: Action | Actions, start: Phase, n_steps: int, method: Integrator) -> float:
    """Root mean square ΔH of trajectories of length one."""
    end = trajectory(parts(action), start, 1 / n_steps, levels(action, n_steps), method)
    first, last = (energy_and_momentum(whole(action), point) for point in (start, end))
    return (last - first).square().mean().sqrt().item()


def order(action: Action | Actions, method: Integrator, n_steps: int = 32) -> None:
    """ΔH ∝ ε^order at fixed length, by the slope between ε and ε/2."""
    start = thermal(action, 64)
    slope = math.log2(energy_error(action, start, n_steps, method) / energy_error(action, start, 2 * n_steps, method))
    assert abs(slope - method.order) < 0.15, f"{method} has order {slope:.2f}"


def gaussian_samples(action: FreeField, n: int) -> Tensor:  # -> (n, *extents)
    """Exact samples of a free field."""
    base = GaussianField.free(action.field.lattice, action.mass_squared)
    return base.sample(n, generator=generator(5))


def creutz(kernel: Kernel, x: Tensor) -> None:
    """⟨e^{-ΔH}⟩ = 1 over trajectories that start at samples x of the target."""
    _, info = kernel.step(kernel.init(x), generator())
    assert info.delta.std() > 0.05, f"{kernel} is too exact for this law to see anything"
    within((-info.delta).exp(), 1.0, f"{kernel}: ⟨exp(-ΔH)⟩")


def stays_exact(kernel: Kernel, action: FreeField, n: int = 4000, n_steps: int = 3) -> None:
    """Chains that start at exact samples of a free field keep its spectrum 1/2(m² + k̂²), V/2 and V/2 + V²/4."""
    state = kernel.init(gaussian_samples(action, n))
    for seed in range(n_steps):
        state, _ = kernel.step(state, generator(seed))
    axes = tuple(range(1, state.x.ndim))
    power = torch.fft.fftn(state.x, dim=axes, norm="ortho").abs().square()
    within(power, action.gaussian_spectrum(), f"{kernel}: power spectrum")
    volume, energy = action.field.lattice.volume, action.energy(state.x)
    within(energy, volume / 2, f"{kernel}: ⟨S⟩")
    within(energy**2, volume / 2 + volume**2 / 4, f"{kernel}: ⟨S²⟩")
