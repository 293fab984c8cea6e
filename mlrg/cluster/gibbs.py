"""The historical way: Gibbs samples of the teacher, contrastive divergence for the student."""

from __future__ import annotations

import torch
from torch import Tensor

from mlrg.cluster.plaquette import Plaquette

CORNERS = ((0, 0, 0), (0, 1, 2), (1, 1, 1), (1, 2, 3), (2, 2, 2), (2, 3, 0), (3, 0, 1), (3, 3, 3))
"""(edge, corner, direction) of the eight bonds of the decorated square."""


def gibbs_teacher(model: Plaquette, J: Tensor, n: int, n_steps: int, generator: torch.Generator) -> Tensor:
    """Draw the outer sites of the teacher by n_steps block updates from random spins: (batch, n, 4) states.

    Biased towards disorder at strong coupling: that shifts the published fixed point upwards.
    """
    bonds = model.log_bonds(model.bond.matrices(J))
    outer = torch.randint(model.n_states, (len(J), n, 4), generator=generator, device=J.device)
    for _ in range(n_steps):
        hidden = _draw(_field(bonds, outer, on="edge"), generator)
        outer = _draw(_field(bonds, hidden, on="corner"), generator)
    return outer


def contrastive_divergence(model: Plaquette, J: Tensor, outer: Tensor, generator: torch.Generator) -> Tensor:
    """A loss (batch,) whose gradient is that of one-step contrastive divergence of the student.

    -⟨log w(o, c)⟩_data + ⟨log w(o', c)⟩, c drawn given o, o' given c. Its value means nothing.
    """
    bonds = model.log_bonds(model.bond.matrices(J))
    fixed = bonds.detach()
    batch = torch.arange(len(J), device=J.device)[:, None, None]
    arms = torch.arange(4, device=J.device)
    centre = _draw(fixed[batch, arms, outer].sum(2, keepdim=True), generator)
    again = _draw(fixed[batch, arms, :, centre.expand(-1, -1, 4)], generator)
    return (bonds[batch, arms, again, centre] - bonds[batch, arms, outer, centre]).sum(-1).mean(-1)


def _field(bonds: Tensor, states: Tensor, on: str) -> Tensor:  # -> (batch, n, 4, N) logits of the other four sites
    batch = torch.arange(len(bonds), device=bonds.device)[:, None]
    logits = bonds.new_zeros((*states.shape, bonds.shape[-1]))
    for edge, corner, r in CORNERS:
        if on == "edge":
            logits[:, :, edge] += bonds.mT[batch, r, states[..., corner]]
        else:
            logits[:, :, corner] += bonds[batch, r, states[..., edge]]
    return logits


def _draw(logits: Tensor, generator: torch.Generator) -> Tensor:  # (..., N) -> (...)
    p = logits.detach().softmax(-1)
    return torch.multinomial(p.flatten(0, -2), 1, generator=generator).reshape(p.shape[:-1])
