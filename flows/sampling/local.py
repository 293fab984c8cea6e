"""Local updates, a checkerboard at a time: Metropolis for scalar fields, heat bath for spins.

Both need nothing but the force of the action. Sites of one colour do not feel each other, so the energy difference of
moving x_s alone is that of moving all of its colour at once, read off site by site:

    ΔS_s = -∫₀¹ dt δ_s F_s(x + t δ),    F = -∂S/∂x,

and Gauss quadrature with n nodes is exact when S is a polynomial of degree ≤ 2n in x_s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from flows.sampling.kernel import Info, Kernel, State
from flows.sampling.metropolis import accept, tune
from lattices.action import Action
from lattices.fields import Real
from lattices.lattice import Lattice
from lattices.theories.ising import Spins

Move = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LocalMetropolis(Kernel):
    """Metropolis on single sites of a scalar field: even sites together, then odd sites.

        x_s → x_s + width · u,  u uniform in [-1, 1],    accept with probability min(1, e^{-ΔS_s})

    One sweep costs 2 n_nodes forces, of cost V each. For nearest-neighbour actions on even extents; `init` refuses
    others. `adapt` tunes the width to an acceptance of one half.

    Args:
        action: a scalar action with nearest neighbours, polynomial of degree ≤ 2 n_nodes at each site.
        width: largest change of a field value.
        n_nodes: quadrature nodes: 2 is exact up to φ⁴, 3 up to φ⁶.
    """

    action: Action
    width: float
    n_nodes: int = 2

    def __post_init__(self) -> None:
        if self.action.field.target != Real():
            raise ValueError(f"expected a scalar field, got {self.action.field.target}: use HMC or SpinHeatBath")
        if not 0 < self.width < float("inf") or self.n_nodes < 1:
            raise ValueError(f"expected width > 0 and n_nodes >= 1, got {self.width} and {self.n_nodes}: try 0.5 and 2")
        self.action.field.lattice.require_even("a checkerboard update")

    def init(self, x: Tensor) -> State:
        x = self.action.field.validate(x)
        check_local(self.action, x, torch.ones_like(x), self.n_nodes)
        return State(x, self.action.energy(x))

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        def move(x: Tensor) -> Tensor:
            uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            return self.width * (2 * uniform - 1)

        return sweep(self.action, state.x, move, self.n_nodes, lambda difference: accept(-difference, generator))

    def adapt(self, state: State, n_steps: int, generator: torch.Generator) -> tuple[LocalMetropolis, State]:
        def make(width: float) -> LocalMetropolis:
            return replace(self, width=width)

        return tune(make, self.width, 0.5, state, n_steps, generator)

    @classmethod
    def examples(cls) -> Iterator[LocalMetropolis]:
        """φ⁴ on a square and on an anisotropic box."""
        from lattices.theories.phi4 import Phi4

        yield cls(Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0), width=0.5)
        yield cls(Phi4(extents=(2, 4), mass_squared=1.0, quartic=0.5), width=1.0)


@dataclass(frozen=True)
class SpinHeatBath(Kernel):
    """Heat bath for spins ±1: every spin drawn anew given its neighbours, even sites together, then odd sites.

        P(s_x = ±1 | neighbours) ∝ e^{±h_x},    that is: flip with probability 1 / (1 + e^{ΔS_x}),  ΔS_x = 2 s_x h_x

    One sweep costs two forces, of cost V each. For nearest-neighbour spin actions on even extents; `init` refuses
    others. (Metropolis flips of a whole colour are not ergodic: a spin in no field flips with certainty.)

    Args:
        action: linear in each spin, with force = local field h.
    """

    action: Action

    def __post_init__(self) -> None:
        if self.action.field.target != Spins():
            raise ValueError(f"expected spins ±1, got {self.action.field.target}: use LocalMetropolis or HMC")
        self.action.field.lattice.require_even("a checkerboard update")

    def init(self, x: Tensor) -> State:
        x = self.action.field.validate(x)
        check_local(self.action, x, -2 * x, 1)
        return State(x, self.action.energy(x))

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        def flips(difference: Tensor) -> Tensor:
            return accept(-softplus(difference.double()), generator)

        return sweep(self.action, state.x, lambda x: -2 * x, 1, flips)

    @classmethod
    def examples(cls) -> Iterator[SpinHeatBath]:
        """The Ising model, with either sign of the coupling."""
        from lattices.theories.ising import Ising

        yield cls(Ising(extents=(2, 4), coupling=0.3))
        yield cls(Ising(extents=(2, 2, 2), coupling=-0.2))


def sweep(action: Action, x: Tensor, move: Move, n_nodes: int, decide: Move) -> tuple[State, Info]:
    """Both colours once; Info.accepted is the fraction of sites that moved."""
    moved = x.new_zeros(len(x), dtype=torch.float64)
    for colour in _colours(action.field.lattice, x.device):
        step = move(x) * colour
        accepted = decide(_energy_differences(action, x, step, n_nodes)) & colour
        x = torch.where(accepted, x + step, x)
        moved += accepted.flatten(1).double().mean(1)
    return State(x, action.energy(x)), Info(moved, torch.zeros_like(moved))


def _energy_differences(action: Action, x: Tensor, move: Tensor, n_nodes: int) -> Tensor:
    """-∫₀¹ dt δ_s F_s(x + t δ) for every site s.  (chains, *extents) -> (chains, *extents)"""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    forces = (w / 2 * action.force(x + (t + 1) / 2 * move) for t, w in zip(nodes.tolist(), weights.tolist()))
    return -sum(forces, torch.zeros_like(x)) * move


def _colours(lattice: Lattice, device: torch.device) -> Tensor:  # -> (2, *extents), bool
    """The even and the odd sites."""
    odd = lattice.coordinates(device).sum(1).reshape(lattice.extents) % 2 == 1
    return torch.stack([~odd, odd])


def check_local(action: Action, x: Tensor, move: Tensor, n_nodes: int) -> None:
    """Raise unless moving the origin changes S by the quadrature, and no force on the other even sites."""
    even = _colours(action.field.lattice, x.device)[0].flatten()
    origin = torch.arange(len(even), device=x.device).reshape(x.shape[1:]) == 0
    step = move * origin
    tolerance = torch.finfo(x.dtype).eps ** 0.5 * (1 + action.energy(x).abs())
    felt = (action.force(x + step) - action.force(x)).abs().flatten(1)[:, even][:, 1:]
    if (felt > tolerance[:, None]).any():
        raise ValueError(f"expected nearest neighbours only, got {action} that couples sites of one colour: use HMC")
    predicted = _energy_differences(action, x, step, n_nodes).flatten(1).sum(1)
    if ((action.energy(x + step) - action.energy(x) - predicted).abs() > tolerance).any():
        raise ValueError(f"expected a polynomial of degree <= {2 * n_nodes} at each site: raise n_nodes, or use HMC")
