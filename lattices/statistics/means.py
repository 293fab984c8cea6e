"""Weighted means of independent samples and functions of them, by jackknife and bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lattices.statistics.estimate import Estimate
from lattices.statistics.samples import (
    Generator,
    Samples,
    checked_log_weights,
    checked_samples,
    numpy_generator,
)


def reweighted_mean(observable: Samples, log_weights: Samples) -> Estimate:  # (n,), (n,) -> scalar
    """Mean of an observable under the target, from independent weighted samples.

        ⟨O⟩ = Σ w O / Σ w,    error² = n/(n-1) Σ w² (O - ⟨O⟩)² / (Σ w)²

    Args:
        observable: values at the samples.
        log_weights: logarithms of their weights up to a constant; -inf is a weight of zero.
    """
    weights, weighted = weighted_columns([observable], log_weights, (1,))
    values = checked_samples("observable", observable, 1)
    if weights.sum() == 1:  # the largest weight is one
        raise ValueError("expected several positive weights, got one: take more samples, one has no error")
    mean = float(weighted.sum() / weights.sum())
    spread = np.linalg.norm(weights * (values - mean)) / weights.sum()
    return Estimate(mean, float(spread) * math.sqrt(len(values) / (len(values) - 1)), len(values))


def jackknife(
    function: Callable[..., np.ndarray],
    *observables: Samples,
    log_weights: Samples | None = None,
    block_length: int = 1,
) -> Estimate:  # (n,)... or (n_chains, n_steps)... -> scalar
    """A function of (weighted) means, with the error from leaving out one block of samples at a time.

        θ = f(⟨O₁⟩, ⟨O₂⟩, …),    error² = (B-1)/B Σ_b (θ_b - θ̄)²

    Blocks of one sample suit independent samples; blocks of many autocorrelation times suit chains, if
    there are still many blocks (`chain_function` chooses by itself). Cost n. The Binder cumulant of m is
    `jackknife(lambda m2, m4: 1 - m4 / (3 * m2**2), m**2, m**4)`.

    Args:
        function: acts elementwise on numpy arrays, one argument per observable.
        observables: values at the same samples.
        log_weights: logarithms of their weights up to a constant; None for equal weights.
        block_length: steps per block.
    """
    columns = weighted_columns(observables, log_weights, (1, 2))
    value = float(evaluate(function, total(columns)))
    blocks = _block_sums(columns, block_length)
    left_out = evaluate(function, total(blocks)[:, None] - blocks.reshape(len(blocks), -1))
    error = math.sqrt(left_out.size - 1) * float(left_out.std())
    return Estimate(value, error, columns[0].size)


def bootstrap(
    function: Callable[..., np.ndarray],
    *observables: Samples,
    generator: Generator,
    log_weights: Samples | None = None,
    n_resamples: int = 400,
) -> Estimate:  # (n,)... -> scalar
    """A function of (weighted) means of independent samples, with the error from resampling them.

    Cost n × n_resamples, and noise of relative size (2 n_resamples)^-½ on the error; prefer `jackknife`
    unless the function is far from linear over the spread of the means.

    Args:
        function: acts elementwise on numpy arrays, one argument per observable.
        observables: values at the same samples.
        generator: numpy or torch generator.
        log_weights: logarithms of their weights up to a constant; None for equal weights.
        n_resamples: number of resamples, at least 2.
    """
    columns = weighted_columns(observables, log_weights, (1,))
    draws = resampled_means(columns, numpy_generator(generator), n_resamples)
    error = float(evaluate(function, draws).std(ddof=1))
    return Estimate(float(evaluate(function, total(columns))), error, columns.shape[1])


def weighted_columns(
    observables: Sequence[Samples], log_weights: Samples | None, dimensions: tuple[int, ...]
) -> np.ndarray:  # -> (1 + n_observables, *sample_shape)
    """w, w O₁, w O₂, …"""
    values = [checked_samples(f"observable {i}", x, *dimensions) for i, x in enumerate(observables, 1)]
    if not values:
        raise ValueError("expected at least one observable, got none: pass one array per argument of the function")
    logs = np.zeros(values[0].shape) if log_weights is None else checked_log_weights(log_weights, *dimensions)
    shapes = {array.shape for array in (logs, *values)}
    if len(shapes) > 1:
        raise ValueError(f"expected arrays of one shape, got {shapes}: measure all at the same samples")
    return np.exp(logs - logs.max()) * np.stack([np.ones_like(logs), *values])


def total(columns: np.ndarray) -> np.ndarray:
    return columns.reshape(len(columns), -1).sum(1)


def evaluate(function: Callable[..., np.ndarray], columns: np.ndarray) -> np.ndarray:
    """f(Σ w O₁ / Σ w, …) for every entry of (1 + n_observables, …)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.asarray(function(*(columns[1:] / columns[0])), dtype=np.float64)
    if values.shape != columns.shape[1:] or not np.isfinite(values).all():
        raise ValueError(
            f"expected finite values of shape {columns.shape[1:]} from the function, got {values}: "
            "let it act elementwise, and take more samples if one of them carries all the weight"
        )
    return values


def _block_sums(columns: np.ndarray, block_length: int) -> np.ndarray:  # (k, ..., n_steps) -> (k, ..., n_blocks)
    """Sums over consecutive blocks of at least `block_length` steps."""
    n_steps = columns.shape[-1]
    if not 1 <= block_length <= n_steps or columns[0].size < 2 * block_length:
        raise ValueError(f"expected 1 <= block_length <= {n_steps} and two blocks, got {block_length}: shorten it")
    n_blocks = n_steps // block_length
    return np.add.reduceat(columns, np.arange(n_blocks) * n_steps // n_blocks, axis=-1)


def resampled_means(columns: np.ndarray, generator: np.random.Generator, n_resamples: int) -> np.ndarray:
    """Means of the columns over bootstrap resamples: (k, n) -> (k, n_resamples)."""
    if n_resamples < 2:
        raise ValueError(f"expected n_resamples >= 2, got {n_resamples}: increase it")
    n = columns.shape[1]
    counts = (np.bincount(generator.integers(n, size=n), minlength=n) for _ in range(n_resamples))
    return np.stack([columns @ count / n for count in counts], axis=1)
