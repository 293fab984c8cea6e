"""Scaling dimensions from transfer matrices of plaquettes in a row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST_MATRIX = 1024


def scaling_dimensions(log_weight: Tensor, width: int = 1, n: int = 1) -> Tensor:  # (N, N, N, N) -> (n,)
    """Δ_k = (w/2π) log(λ_0/λ_k) of w plaquettes stacked around a cylinder, k = 1 … n in ascending order.

    The plaquette passes from outer site 0 to 2; sites 1 and 3 are joined to its neighbours above and below. For
    Ising the first is Δσ (odd) and the second Δε. At a critical point Δ is exact as w → ∞. Cost N^{3w}.

    Args:
        log_weight: log W of the four outer sites, of a teacher or of a student.
        width: number w >= 1 of plaquettes; N^w may not exceed 1024.
        n: how many dimensions.
    References: J. L. Cardy, J. Phys. A 17 (1984) L385.
    """
    states = log_weight.shape[0] ** width if width >= 1 else 0
    if not n < states <= LARGEST_MATRIX:
        raise ValueError(
            f"expected width >= 1 and {n} < N^width <= {LARGEST_MATRIX}, got N = {log_weight.shape[0]}, "
            f"width {width}: change the width"
        )
    values = torch.linalg.eigvals(transfer_matrix(log_weight, width)).abs().sort(descending=True).values
    return width / (2 * math.pi) * (values[0] / values[1 : n + 1]).log()


def transfer_matrix(log_weight: Tensor, width: int) -> Tensor:  # (N, N, N, N) -> (N^w, N^w)
    """The transfer matrix of w plaquettes around a cylinder, up to a positive factor."""
    single = (log_weight - log_weight.max()).exp().permute(1, 0, 2, 3)  # below, in, out, above
    column = single
    for _ in range(width - 1):
        joined = torch.einsum("saen,nbfm->sabefm", column, single)
        column = joined.flatten(1, 2).flatten(2, 3)
    return torch.einsum("saes->ae", column)
