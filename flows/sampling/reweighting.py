"""Importance reweighting: independent samples of a flow, corrected by their weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from flows.distribution import Distribution
from lattices.action import Action
from lattices.statistics import (
    EffectiveSampleSize,
    Estimate,
    chain_function,
    effective_sample_size,
    jackknife,
    log_mean_exp,
    reweighted_mean,
)

_FEWEST_EFFECTIVE = 100

Measure = Callable[[Tensor], dict[str, Tensor]]
"""x (n, *event) -> {name: (n, …)}."""


@dataclass(frozen=True, eq=False)
class WeightedSamples:
    """Samples of q with log-weights log w = -S - log q, or of anything else with ⟨w⟩ = Z and ⟨w O⟩ = Z ⟨O⟩.

    Args:
        log_weights: float64, shape (n,).
        measured: observables at the samples, {name: (n, …)}.
        x: the fields, or None where only measurements were kept.
        block_length: samples come in independent populations of this many; errors compare populations.
    """

    log_weights: Tensor
    measured: dict[str, Tensor]
    x: Tensor | None = None
    block_length: int = 1

    def __post_init__(self) -> None:
        n = len(self.log_weights)
        lengths = {name: len(values) for name, values in self.measured.items() if len(values) != n}
        if self.log_weights.ndim != 1 or lengths or (self.x is not None and len(self.x) != n):
            raise ValueError(f"expected {n} weights and as many of everything, got {lengths}: measure every sample")
        if self.block_length < 1 or n % self.block_length:
            raise ValueError(f"expected a block_length that divides {n}, got {self.block_length}: whole populations")

    def effective_sample_size(self, generator: torch.Generator | None = None) -> EffectiveSampleSize:
        """⟨w⟩² / ⟨w²⟩ with its bootstrap interval."""
        return effective_sample_size(self.log_weights, generator)

    def log_z(self) -> Estimate:
        """log ⟨w⟩: the logarithm of an unbiased estimate of Z."""
        blocks = self.log_weights.reshape(-1, self.block_length)
        return log_mean_exp(blocks.logsumexp(1) - np.log(self.block_length))

    def estimates(self) -> dict[str, Estimate]:
        """⟨O⟩ = Σ w O / Σ w for every observable; entries of array observables are named "name[i, j]"."""
        found: dict[str, Estimate] = {}
        for name, values in self.measured.items():
            columns = values.reshape(len(values), -1).T
            for index, column in zip(np.ndindex(values.shape[1:]), columns):
                label = f"{name}[{', '.join(map(str, index))}]" if index else name
                found[label] = self._mean(column)
        return found

    def function(self, function: Callable[..., np.ndarray], *names: str) -> Estimate:
        """f(⟨O_1⟩, ⟨O_2⟩, …) of scalar observables, such as a Binder cumulant, by jackknife."""
        columns = [self.measured[name] for name in names]
        return jackknife(function, *columns, log_weights=self.log_weights, block_length=self.block_length)

    def gathered(self, gather: Callable[[Tensor], Tensor]) -> WeightedSamples:
        """The samples of all ranks; `gather` concatenates a tensor over ranks along its first axis."""
        measured = {name: gather(values) for name, values in self.measured.items()}
        x = None if self.x is None else gather(self.x)
        return WeightedSamples(gather(self.log_weights), measured, x, self.block_length)

    def _mean(self, values: Tensor) -> Estimate:  # (n,) -> scalar
        if self.block_length == 1:
            return reweighted_mean(values, self.log_weights)
        return jackknife(lambda o: o, values, log_weights=self.log_weights, block_length=self.block_length)


@torch.no_grad()
def reweight(
    flow: Distribution,
    action: Action,
    n: int,
    generator: torch.Generator,
    measure: Measure | None = None,
    chunk: int | None = None,
) -> WeightedSamples:
    """n samples of a flow with the weights that make them samples of e^{-S}/Z, on average.

        log w = -S(x) - log q(x),    Z = ⟨w⟩_q

    Memory is bounded by `chunk` fields when something is measured; otherwise all n fields are kept. A progress bar
    shows on terminals. Conditional flows: pass `Conditioned(flow, couplings)`.

    Args:
        flow: normalised distribution on the space of `action`.
        n: number of samples, at least 2.
        measure: x (n, *event) -> {name: (n, …)}; None keeps the fields instead.
        chunk: samples drawn at once; None for 2¹⁷ sites, beyond which temporaries are too large for the heap.
    """
    if flow.field != action.field:
        raise ValueError(f"expected a flow on {action.field}, got one on {flow.field}: use the same lattice")
    chunk = max(16, 2**17 // action.field.lattice.volume) if chunk is None else chunk
    parts = []
    for size in tqdm(chunk_sizes(n, chunk), disable=None, leave=False, desc="reweighting"):
        x, log_prob = flow.sample_with_log_prob(size, generator=generator)
        log_weights = -action.energy(x).double() - log_prob.double()
        parts.append(recorded(x, log_weights, measure))
    return join(parts)


@torch.no_grad()
def reweight_chains(x: Tensor, source: Action, target: Action, measure: Measure) -> dict[str, Estimate]:
    """Means under one action from equilibrated chains of another on the same field: another β, or another theory.

        ⟨O⟩_target = ⟨w O⟩_source / ⟨w⟩_source,    log w = S_source - S_target

    with errors of the Γ-method for the ratio, so that autocorrelation counts. Warns when fewer than a hundred
    effective samples carry the weight: the overlap falls like e^{-V (Δβ)²}. Cost one energy of each action per field.

    Args:
        x: fields, shape (n_chains, n_steps, *event), as `equilibrated` returns them.
        source: the action of the chains.
        target: the action to move to.
        measure: x (n, *event) -> {name: (n,)}.

    References: A. M. Ferrenberg, R. H. Swendsen, Phys. Rev. Lett. 61 (1988) 2635.
    """
    if source.field != target.field or tuple(x.shape[2:]) != source.field.event_shape:
        raise ValueError(
            f"expected chains (n_chains, n_steps, *event) on {source.field} and a target there, got "
            f"{tuple(x.shape)} and {target.field}: use the same lattice"
        )
    steps = x.unbind(1)
    log_weights = torch.stack([source.energy(y).double() - target.energy(y).double() for y in steps], 1)
    effective = float(1 / log_weights.flatten().softmax(0).square().sum())
    if effective < _FEWEST_EFFECTIVE:
        warnings.warn(
            f"expected {_FEWEST_EFFECTIVE} effective samples or more, got {effective:.1f} of {log_weights.numel()}: "
            "the actions hardly overlap, take a nearer target or longer chains",
            stacklevel=2,
        )
    found = [measure(y) for y in steps]
    columns = {name: torch.stack([each[name] for each in found], 1) for name in found[0]}
    return {name: chain_function(lambda o: o, o, log_weights=log_weights) for name, o in columns.items()}


def chunk_sizes(n: int, chunk: int) -> list[int]:
    """n samples in chunks, the last one smaller if need be."""
    if n < 2 or chunk < 1:
        raise ValueError(f"expected n >= 2 samples in chunks of at least 1, got {n} and {chunk}: take more")
    return [min(chunk, n - start) for start in range(0, n, chunk)]


def recorded(x: Tensor, log_weights: Tensor, measure: Measure | None, block_length: int = 1) -> WeightedSamples:
    """What is kept of a chunk: its measurements, or its fields when nothing is measured."""
    kept = None if measure else x
    return WeightedSamples(log_weights, measure(x) if measure else {}, kept, block_length)


def join(parts: list[WeightedSamples]) -> WeightedSamples:
    """The samples of all parts in a row."""
    measured = {name: torch.cat([part.measured[name] for part in parts]) for name in parts[0].measured}
    fields = [part.x for part in parts if part.x is not None]
    log_weights = torch.cat([part.log_weights for part in parts])
    return WeightedSamples(log_weights, measured, torch.cat(fields) if fields else None, parts[0].block_length)
