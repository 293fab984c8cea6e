"""Annealed importance sampling and sequential Monte Carlo, from any distribution to any action."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from flows.distribution import Distribution
from flows.sampling.density import Density
from flows.sampling.kernel import Kernel
from flows.sampling.reweighting import Measure, WeightedSamples, chunk_sizes, join, recorded
from lattices.action import Action


@dataclass(frozen=True, eq=False)
class Annealing:
    """Carry samples of a base to a target along a path of actions, with a Markov step and a weight at every stage.

        S_t = (1 - t) S_base + t S,    log w = Σ_k (t_k - t_{k-1}) [S_base(x_k) - S(x_k)],    S_base = -log q

    with x_k before the step that leaves S_{t_k} invariant, so that ⟨w⟩ = Z exactly, for any number of stages. A
    Gaussian base is the classical baseline; a trained flow as the base is corrected by further stages. With
    `resample_below` populations are resampled when their ESS falls below it (sequential Monte Carlo): Z stays
    unbiased, and errors come from independent populations. Cost: n_stages kernel steps per sample.

    Args:
        base: normalised distribution on the space of `action`.
        action: the target S.
        moves: the kernel for a given action, e.g. `lambda action: HMC(action, 0.1, 10)`.
        n_stages: stages from t = 0 to t = 1.
        resample_below: ESS in [0, 1) below which a population is resampled; 0 never resamples.
        kernels: one tuned kernel per stage, as `tuned` sets them; empty for untuned `moves`.

    References:
        R. M. Neal, physics/9803008; P. Del Moral, A. Doucet, A. Jasra, J. R. Stat. Soc. B 68 (2006) 411.
    """

    base: Distribution
    action: Action
    moves: Callable[[Action], Kernel]
    n_stages: int = 50
    resample_below: float = 0.0
    kernels: tuple[Kernel, ...] = ()

    def __post_init__(self) -> None:
        if self.base.field != self.action.field:
            raise ValueError(f"expected a base on {self.action.field}, got {self.base.field}: use the same lattice")
        if self.n_stages < 1 or len(self.kernels) not in (0, self.n_stages):
            raise ValueError(
                f"expected n_stages >= 1 and one kernel per stage or none, got {self.n_stages} and "
                f"{len(self.kernels)}: leave `kernels` to `tuned`"
            )
        if not 0 <= self.resample_below < 1:
            raise ValueError(f"expected 0 <= resample_below < 1, got {self.resample_below}: try 0.5")

    def path(self, t: float) -> Action:
        """S_t."""
        return self.action if t == 1 else (1 - t) * Density(self.base) + t * self.action

    @torch.no_grad()
    def tuned(self, n_chains: int, n_steps: int, generator: torch.Generator) -> Annealing:
        """The same sampler with every stage's kernel adapted by n_steps steps of pilot chains, and then frozen."""
        x, kernels = self.base.sample(n_chains, generator=generator), []
        for kernel in tqdm(self._kernels(), disable=None, leave=False, desc="tuning"):
            kernel, state = kernel.adapt(kernel.init(x), n_steps, generator)
            kernels.append(kernel)
            x = state.x
        return replace(self, kernels=tuple(kernels))

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator, measure: Measure | None = None, chunk: int = 1000
    ) -> WeightedSamples:
        """n weighted samples of the target, in independent populations of `chunk`.

        Args:
            n: number of samples, at least 2; a multiple of `chunk` when populations are resampled.
            measure: x (n, *event) -> {name: (n, …)}; None keeps the fields instead.
            chunk: samples carried at once.
        """
        if self.resample_below and n % chunk:
            raise ValueError(f"expected n to be a multiple of chunk = {chunk}, got {n}: resampling needs equal chunks")
        kernels, block_length = self._kernels(), chunk if self.resample_below else 1
        parts = []
        for size in tqdm(chunk_sizes(n, chunk), disable=None, leave=False, desc="annealing"):
            x, log_weights = self._population(size, kernels, generator)
            parts.append(recorded(x, log_weights, measure, block_length))
        return join(parts)

    def _kernels(self) -> tuple[Kernel, ...]:
        stages = range(1, self.n_stages + 1)
        return self.kernels or tuple(self.moves(self.path(k / self.n_stages)) for k in stages)

    def _population(
        self, n: int, kernels: tuple[Kernel, ...], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:  # -> (n, *event), (n,)
        x, log_prob = self.base.sample_with_log_prob(n, generator=generator)
        log_weights = torch.zeros_like(log_prob, dtype=torch.float64)
        for kernel in kernels:
            log_weights = log_weights - (self.action.energy(x).double() + log_prob.double()) / self.n_stages
            if self.resample_below:
                x, log_weights = resampled(x, log_weights, self.resample_below, generator)
            state, _ = kernel.step(kernel.init(x), generator)
            x = state.x
            log_prob = self.base.log_prob(x)
        return x, log_weights


def resampled(
    x: Tensor, log_weights: Tensor, threshold: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:  # (n, *event), (n,) -> the same
    """Systematic resampling if the ESS is below `threshold`: copies in proportion to w, then all of weight ⟨w⟩."""
    weights = (log_weights - log_weights.max()).exp()
    if weights.mean() ** 2 >= threshold * weights.square().mean():
        return x, log_weights
    n = len(x)
    offset = torch.rand(1, generator=generator, dtype=torch.float64, device=x.device)
    levels = (torch.arange(n, device=x.device) + offset) / n
    chosen = torch.searchsorted(weights.cumsum(0) / weights.sum(), levels).clamp(max=n - 1)
    mean = log_weights.logsumexp(0) - torch.tensor(n, dtype=torch.float64).log()
    return x[chosen], mean.expand(n).clone()
