"""Free energies of large lattices from small ones, by the recursion that the learned map closes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mlrg.couplings import CouplingSpace

LogZ = Callable[[int, Tensor], float]
"""log Z of the lattice of an extent at couplings (n,): of a flow by reweighting, or exact."""
Map = Callable[[Tensor], Tensor]
"""A moderator: (batch, n) -> (batch, n)."""


def inhomogeneous_part(log_z: LogZ, moderator: Map, couplings: Tensor, extent: int, dimension: int = 2) -> float:
    """g(J) = [log Z_{2L}(J) - log Z_L(M(J))] / (2L)^d: the free energy per site of the details that a step removes."""
    image = moderator(couplings[None])[0].detach()
    return (log_z(2 * extent, couplings) - log_z(extent, image)) / (2 * extent) ** dimension


def extended_log_z(
    log_z: LogZ,
    moderator: Map,
    couplings: Tensor,
    extent: int,
    n_steps: int,
    dimension: int = 2,
    space: CouplingSpace | None = None,
) -> float:
    """log Z on extent·2^{n_steps}, with flows of `extent` and 2·extent alone.

        log Z_{2L'}(J) = (2L')^d g(J) + log Z_{L'}(M(J)),    g measured at the smallest L' = extent

    applied from the largest lattice down. Exact for an exact map and an L-independent g, as in decimation; else its
    error is that of g, whose finite-size part falls with `extent`, and of M at the couplings on the way.

    Args:
        log_z: of the two small lattices.
        moderator: M.
        couplings: J (n,) of the large lattice.
        n_steps: doublings, 1 or more: with 1 it is log Z of 2·extent itself.
        space: where M may be asked, or None for everywhere; a ValueError says when the flow line leaves it.
    """
    if n_steps < 1:
        raise ValueError(f"expected n_steps >= 1, got {n_steps}: one step is the lattice of twice the extent")
    total, at = 0.0, couplings
    for step in range(n_steps, 0, -1):
        if space is not None:
            space.require(at)
        g = inhomogeneous_part(log_z, moderator, at, extent, dimension)
        total += (extent * 2**step) ** dimension * g
        with torch.no_grad():
            at = moderator(at[None])[0].detach()
    return total + log_z(extent, at)
