"""Proposals of new couplings: lessons concentrate where the moderator stands nearly still."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flows.sampling.hmc import HMC
from flows.sampling.kernel import run
from lattices.action import Action
from lattices.fields import FieldSpace, Real, Transformation
from lattices.invariance import Sign, Symmetry
from lattices.lattice import Lattice
from mlrg.couplings import CouplingSpace
from mlrg.learning import Moderator
from mlrg.moderator import SmoothMap


@dataclass(frozen=True, eq=False)
class Restlessness(Action):
    """How far a map moves couplings u in units of the region, as an energy: exp(-S) lives near fixed points.

        S(u) = |M(J) - J|² / (2 T²) + wall,   J = centre + scale u,   wall = 50 Σ max(0, |u| - 1)²

    For a gradient flow |M(J) - J| = |∇C|. The field is one site with n components.

    Args:
        moderator: the map.
        space: the region that proposals stay in.
        temperature: T, in units of the region.
    """

    moderator: Moderator
    space: CouplingSpace
    temperature: float = 0.1

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice((1,)), Real(len(self.space.names)))

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return ()

    @property
    def broken(self) -> Transformation:
        return Sign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, 1, n) -> (batch,)
        u = x[:, 0]
        couplings = self.space.centre + self.space.scale * u
        moved = (self.moderator(couplings) - couplings) / self.space.scale
        wall = (u.abs() - 1).clamp(min=0).square().sum(1)
        return moved.square().sum(1) / (2 * self.temperature**2) + 50 * wall

    @classmethod
    def examples(cls) -> Iterator[Restlessness]:
        """A map of two couplings that has learned nothing but a drift."""
        space = CouplingSpace(("nearest", "diagonal"), (0.3, 0.0), (0.5, 0.1))
        moderator = SmoothMap(2, space.centre, space.scale, (4,), torch.Generator().manual_seed(0))
        with torch.no_grad():
            nn.init.constant_(list(moderator.parameters())[-1], 0.3)
        yield cls(moderator, space)


def propose(
    moderator: Moderator, space: CouplingSpace, n: int, generator: torch.Generator, temperature: float = 0.1
) -> Tensor:  # -> (n, n_couplings)
    """n couplings from exp(-|M(J) - J|²/2T²) on the region, by Hamiltonian Monte Carlo from uniform starts."""
    action = Restlessness(moderator, space, temperature)
    start = space.unit(space.sample(n, generator))[:, None]
    kernel, state = HMC(action, 0.1, 10, jitter=0.2).adapt(HMC(action, 0.1, 10).init(start), 50, generator)
    end = run(kernel, state, 50, generator, desc="proposals").state.x[:, 0]
    return space.centre + space.scale * end.clamp(-1, 1)


def spread(space: CouplingSpace, n: int) -> Tensor:  # -> (n, n_couplings)
    """n couplings that cover the region evenly: a grid for one coupling, a Sobol sequence for more."""
    if len(space.names) == 1:
        unit = torch.linspace(-1, 1, n, dtype=torch.float64)[:, None] if n > 1 else torch.zeros(1, 1).double()
    else:
        unit = 2 * torch.quasirandom.SobolEngine(len(space.names)).draw(n + 1, dtype=torch.float64)[1:] - 1
    return space.centre + space.scale * unit
