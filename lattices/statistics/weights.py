"""Importance weights: how many samples they are worth, and the free energy they measure."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from arviz_stats.base import array_stats

from lattices.statistics.estimate import Estimate
from lattices.statistics.means import resampled_means
from lattices.statistics.samples import (
    Generator,
    Samples,
    checked_log_weights,
    checked_samples,
    numpy_generator,
)


@dataclass(frozen=True)
class EffectiveSampleSize:
    """Effective sample size per sample, its bootstrap interval, and the signs of a heavy tail.

    `max_weight` is the largest weight in units of their sum. `pareto_k` is the shape of the upper tail:
    above min(1 - 1/log₁₀ n, 0.7) no error bar of these weights can be trusted; None when there is no tail
    to fit (fewer than 25 samples, or equal weights).
    """

    value: float
    low: float
    high: float
    n: int
    max_weight: float
    pareto_k: float | None

    def __str__(self) -> str:
        tail = "none" if self.pareto_k is None else f"{self.pareto_k:.2f}"
        interval = f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"
        return f"{interval} (n = {self.n}, largest weight {self.max_weight:.1e}, tail index {tail})"


def effective_sample_size(
    log_weights: Samples, generator: Generator | None = None, n_resamples: int = 200, confidence: float = 0.95
) -> EffectiveSampleSize:  # (n,) -> scalar
    """Effective sample size of importance weights w = p/q at samples of q.

        ESS = ⟨w⟩² / ⟨w²⟩ in [1/n, 1]

    Biased upward at small n, and blind to modes that q misses (see `forward_effective_sample_size`).
    Log-normal weights have ESS = exp(-var log w). Cost n × n_resamples.

    Args:
        log_weights: logarithms up to a constant; -inf is a weight of zero.
        generator: randomness of the bootstrap; None asks the operating system.
        n_resamples: bootstrap resamples behind the interval.
        confidence: probability of the interval from `low` to `high`.

    References:
        A. Kong, Univ. Chicago Stat. Tech. Rep. 348 (1992); A. Vehtari et al., 1507.02646 (`pareto_k`).
    """
    logs = checked_log_weights(log_weights)
    weights = np.exp(logs - logs.max())
    moments = np.stack([weights, weights**2])
    draws = resampled_means(moments, numpy_generator(generator), n_resamples)
    with np.errstate(invalid="ignore"):
        ratio, ratios = (first**2 / second for first, second in (moments.mean(1), draws))
    return _summary(float(ratio), ratios, logs, confidence)


def forward_effective_sample_size(
    log_weights: Samples, generator: Generator | None = None, n_resamples: int = 200, confidence: float = 0.95
) -> EffectiveSampleSize:  # (n,) -> scalar
    """Effective sample size of weights w = p/q at samples of the target p: it sees the modes that q misses.

        ESS_f = 1 / (⟨w⟩_p ⟨1/w⟩_p) <= 1

    Equals the ESS at samples of q in the limit of many samples. The interval takes the samples as
    independent.

    Args:
        log_weights: logarithms up to a constant, all finite (p > 0 where p was sampled).
        generator: randomness of the bootstrap; None asks the operating system.
        n_resamples: bootstrap resamples behind the interval.
        confidence: probability of the interval from `low` to `high`.
    """
    logs = checked_samples("log_weights", log_weights, 1)
    moments = np.stack([np.exp(logs - logs.max()), np.exp(logs.min() - logs)])
    draws = resampled_means(moments, numpy_generator(generator), n_resamples)
    scale = math.exp(logs.min() - logs.max())
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio, ratios = (scale / (weight * inverse) for weight, inverse in (moments.mean(1), draws))
    return _summary(float(ratio), ratios, logs, confidence)


def log_mean_exp(log_weights: Samples) -> Estimate:  # (n,) -> scalar
    """log ⟨w⟩ of independent weights with its error: log Z when log w = -S - log q at samples of q.

        log Z = log ⟨w⟩,    error = σ_w / (⟨w⟩ √n)

    The error comes from the delta method and is right when n ESS ≫ 1; the bias -error²/2 is not removed.

    Args:
        log_weights: logarithms of the weights; -inf is a weight of zero.
    """
    logs = checked_log_weights(log_weights)
    weights = np.exp(logs - logs.max())
    error = float(weights.std(ddof=1) / weights.mean()) / math.sqrt(len(logs))
    return Estimate(float(logs.max()) + math.log(weights.mean()), error, len(logs))


def _summary(value: float, draws: np.ndarray, logs: np.ndarray, confidence: float) -> EffectiveSampleSize:
    if not 0 < confidence < 1:
        raise ValueError(f"expected 0 < confidence < 1, got {confidence}: pass e.g. 0.95")
    known = np.nan_to_num(draws, nan=1.0, posinf=1.0)  # a resample without any weight excludes nothing
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    max_weight = 1 / float(np.exp(logs - logs.max()).sum())
    value = min(value, 1.0)
    return EffectiveSampleSize(
        value,
        min(float(low), value),
        min(max(float(high), value), 1.0),
        len(logs),
        max_weight,
        _pareto_k(logs),
    )


def _pareto_k(logs: np.ndarray) -> float | None:
    """Shape of the Pareto tail of the largest weights; inf where they dwarf all others.

    Fits the weights themselves: conventions for log weights differ between versions of arviz.
    """
    weights = np.exp(logs - logs.max())
    tail = min(len(logs) // 5, int(3 * math.sqrt(len(logs))))
    if tail < 5:
        return None
    if np.count_nonzero(weights) < tail:
        return math.inf
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape = array_stats.pareto_khat(weights, chain_axis=None, r_eff=1, tail="right")
    except ValueError:  # all weights of the tail are equal
        return None
    return float(shape) if np.isfinite(shape) else math.inf
