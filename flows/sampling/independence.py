"""Independence Metropolis: proposals that do not look at where the chain is, such as the samples of a flow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from flows.distribution import Distribution
from flows.sampling.kernel import Info, Kernel, State
from flows.sampling.metropolis import accept, select
from lattices.action import Action


@dataclass(frozen=True)
class IndependenceMetropolis(Kernel):
    """Metropolis with proposals x' ~ q: exact whatever q, and fast when q is close to the target.

        accept with probability min(1, w(x')/w(x)),    log w = -S - log q

    Proposals are drawn for `block` steps at once and wait in the state, so a step costs one sample, one density and
    one energy. The longest rejection runs tell how large the largest weights are.

    Args:
        action: the target.
        proposal: a normalised distribution on the same space, usually a flow.
        block: steps whose proposals are drawn together; memory is block × chains fields.
    """

    action: Action
    proposal: Distribution
    block: int = 64

    def __post_init__(self) -> None:
        if self.proposal.field != self.action.field:
            raise ValueError(
                f"expected a proposal on {self.action.field}, got {self.proposal.field}: use the same lattice"
            )
        if self.block < 1:
            raise ValueError(f"expected block >= 1, got {self.block}: draw at least one proposal at a time")

    @torch.no_grad()
    def init(self, x: Tensor) -> State:
        energy = self.action(x)
        return self._start(x, energy, _log_weight(energy, self.proposal.log_prob(x)))

    @torch.no_grad()
    def start(self, n_chains: int, generator: torch.Generator) -> State:
        """The state of chains that start at samples of the proposal: needs no inverse."""
        return self._start(*self._propose(n_chains, generator))

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        x, energy, (log_weight, *queue) = state
        if len(queue[0]) == 0:
            drawn = self._propose(self.block * len(x), generator)
            queue = [each.reshape(self.block, len(x), *each.shape[1:]) for each in drawn]
        new_x, new_energy, new_log_weight = (each[0] for each in queue)
        delta = log_weight - new_log_weight
        accepted = accept(-delta, generator)
        pairs = (new_x, x), (new_energy, energy), (new_log_weight, log_weight)
        x, energy, log_weight = (select(accepted, new, old) for new, old in pairs)
        rest = tuple(each[1:] for each in queue)
        return State(x, energy, (log_weight, *rest)), Info(accepted.double(), delta)

    def _propose(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """n proposals, their energies and log-weights."""
        x, log_prob = self.proposal.sample_with_log_prob(n, generator=generator)
        energy = self.action.energy(x)
        return x, energy, _log_weight(energy, log_prob)

    def _start(self, x: Tensor, energy: Tensor, log_weight: Tensor) -> State:
        if not log_weight.isfinite().all():
            raise ValueError("expected finite log-weights at the start, got NaN or Inf: start where q(x) > 0")
        queue = (each.unsqueeze(0)[:0] for each in (x, energy, log_weight))
        return State(x, energy, (log_weight, *queue))

    @classmethod
    def examples(cls) -> Iterator[IndependenceMetropolis]:
        """The best Gaussian as the proposal of φ⁴."""
        from flows.bases import GaussianField
        from lattices.theories.phi4 import Phi4

        action = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
        yield cls(action, GaussianField.of(action), block=4)


class MetropolisChain(NamedTuple):
    """Which sample the chain is at after each proposal, and the fraction of proposals accepted."""

    indices: Tensor  # (n,), int64
    acceptance: float


def metropolise(log_weights: Tensor, generator: torch.Generator) -> MetropolisChain:  # (n,)
    """The Metropolis chain through given independent samples, from their log-weights alone.

    The chain starts at the first sample; `x[indices]` are correlated samples of the target. Proposal t is accepted
    when log w_t - log u_t exceeds the current log w, so that the loop over n compares two numbers (10⁷ per second).

    Args:
        log_weights: -S - log q of independent samples of q; -inf is never visited once left.
    """
    if log_weights.ndim != 1 or len(log_weights) < 2 or log_weights.isnan().any() or not log_weights[0] > -torch.inf:
        raise ValueError(
            f"expected log_weights of shape (n,), n >= 2, without NaN and with a finite first one, got "
            f"{tuple(log_weights.shape)}: flatten them, and start at a sample of positive weight"
        )
    weights = log_weights.detach().double().cpu()
    uniform = torch.rand(len(weights), generator=generator, dtype=torch.float64, device=generator.device)
    thresholds = (weights - uniform.cpu().log()).tolist()
    records, here, current = [], 0, weights[0].item()
    for there, (threshold, weight) in enumerate(zip(thresholds, weights.tolist())):
        if threshold > current:
            here, current = there, weight
        records.append(here)
    indices = torch.tensor(records)
    return MetropolisChain(indices.to(log_weights.device), float((indices.diff() > 0).double().mean()))


def _log_weight(energy: Tensor, log_prob: Tensor) -> Tensor:  # (n,), (n,) -> (n,)
    return -energy.double() - log_prob.double()
