"""Ensemble: weighted fields at known couplings, from a flow or from Markov chains, reweightable to couplings nearby."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lattices.action import Family


class Ensemble(NamedTuple):
    """Fields x_i drawn from a known density, to be reweighted to exp(-S(x; J)).

        w_i(J) ∝ exp[-S(x_i; J) - log p_i],    log p_i = log q(x_i) of a flow, or -S(x_i; J_0) of a chain at J_0

    Fields with one `chain` number are correlated; different ones are independent.
    """

    family: Family
    x: Tensor  # (n, *event), float64
    log_base: Tensor  # (n,), float64, up to a constant
    chain: Tensor  # (n,), integers

    def part(self, fraction: float) -> Ensemble:
        """The first chains, this fraction of them and at least one."""
        ids = self.chain.unique()
        kept = self.chain <= ids[max(0, round(fraction * len(ids)) - 1)]
        return Ensemble(self.family, self.x[kept], self.log_base[kept], self.chain[kept])

    def log_weights(self, couplings: Tensor) -> Tensor:  # (n_couplings,) -> (n,)
        """log w_i(J), not normalised."""
        return -self.family.energy(self.x, couplings) - self.log_base

    def weights(self, couplings: Tensor) -> Tensor:  # (n_couplings,) -> (n,), sums to 1
        """Normalised weights."""
        return torch.softmax(self.log_weights(couplings), 0)

    def ess(self, couplings: Tensor) -> float:
        """1 / (n Σ w²) in (0, 1]."""
        return float(1 / self.weights(couplings).square().sum() / len(self.x))

    def operators(self, couplings: Tensor) -> Tensor:  # (n_couplings,) -> (n, n_couplings)
        """∂S/∂J_a of each field: the operators conjugate to the couplings."""
        with torch.enable_grad():
            rows = couplings.detach().expand(len(self.x), -1).clone().requires_grad_()
            return torch.autograd.grad(self.family.energy(self.x, rows).sum(), rows)[0]


def chain_sums(values: Tensor, chain: Tensor) -> Tensor:  # (n, k), (n,) -> (n_chains, k)
    """Sums over each chain: the independent terms that errors are estimated from."""
    _, index = chain.unique(return_inverse=True)
    return values.new_zeros(int(index.max()) + 1, values.shape[1]).index_add_(0, index, values)
