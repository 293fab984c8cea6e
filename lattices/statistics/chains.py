"""Correlated chains: the Γ-method."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from lattices.statistics.estimate import Estimate
from lattices.statistics.means import evaluate, total, weighted_columns
from lattices.statistics.samples import Samples, checked_samples

_WINDOW_FACTOR = 1.5  # S of the Γ-method: assumed ratio of exponential to integrated autocorrelation time


def integrated_autocorrelation_time(chains: Samples) -> Estimate:  # (n_chains, n_steps) -> scalar
    """Integrated autocorrelation time of equilibrated chains by the Γ-method with automatic window.

        τ_int = ½ + Σ_{t=1}^W ρ(t),    ρ(t) = Γ(t) / Γ(0),    error² = (4/n) (W + ½ - τ) τ²

    Lattice convention: ½ for independent samples (emcee, arviz and pymbar quote twice this). Deviations are
    from the mean of all chains, so chains that disagree count as correlated. The window balances truncation
    against noise, judged by |ρ| so that anticorrelated chains are safe. Cost n log n_steps.

    Args:
        chains: measurements after warm-up, one row per chain.

    References:
        U. Wolff, hep-lat/0306017, section 3.
    """
    array = checked_samples("chains", chains, 2)
    variance, total_covariance, window = _gamma_method(array)
    tau = total_covariance / (2 * variance)
    error = tau * math.sqrt(4 / array.size * max(window + 0.5 - tau, 0.0))
    return Estimate(tau, error, array.size)


def chain_mean(chains: Samples) -> Estimate:  # (n_chains, n_steps) -> scalar
    """Mean of equilibrated chains with the error corrected for autocorrelation.

        error² = 2 τ_int Γ(0) / n

    with τ_int and its window as in `integrated_autocorrelation_time`.

    Args:
        chains: measurements after warm-up, one row per chain.
    """
    array = checked_samples("chains", chains, 2)
    _, total_covariance, _ = _gamma_method(array)
    return Estimate(float(array.mean()), math.sqrt(total_covariance / array.size), array.size)


def chain_function(
    function: Callable[..., np.ndarray], *observables: Samples, log_weights: Samples | None = None
) -> Estimate:  # (n_chains, n_steps)... -> scalar
    """A function of (weighted) means over chains, such as a Binder cumulant, with the error of the Γ-method.

        θ = f(⟨O₁⟩, ⟨O₂⟩, …),    θ_t = n θ - (n-1) θ_{without t},    error = error of the chain mean of θ_t

    The pseudo-values θ_t are the linearised contribution of every step, and carry its autocorrelation.

    Args:
        function: acts elementwise on numpy arrays, one argument per observable.
        observables: measurements at the same steps of the same chains.
        log_weights: logarithms of weights that move the chains to another target; None for equal weights.
    """
    columns = weighted_columns(observables, log_weights, (2,))
    _check_motion(*columns)
    n = columns[0].size
    value = evaluate(function, total(columns))
    left_out = evaluate(function, total(columns)[:, None, None] - columns)
    return Estimate(float(value), chain_mean(n * value - (n - 1) * left_out).error, n)


def _gamma_method(chains: np.ndarray) -> tuple[float, float, int]:
    """Γ(0), C = Γ(0) + 2 Σ_{t=1}^W Γ(t), both corrected for the subtracted mean, and the window W."""
    _check_motion(chains)
    covariance = _autocovariance(chains)
    window = _window(covariance / covariance[0], chains.size)
    if 1 < window == len(covariance) - 1:
        warnings.warn("chains are too short to resolve their autocorrelation: run longer", stacklevel=3)
    total_covariance = float(covariance[0] + 2 * covariance[1 : window + 1].sum())
    bias = max(total_covariance, 0.0) / chains.size
    variance = float(covariance[0]) + bias
    return variance, max(total_covariance + (2 * window + 1) * bias, variance / chains.size), window


def _check_motion(*chains: np.ndarray) -> None:
    if all(np.ptp(chain) == 0 for chain in chains):
        raise ValueError(
            f"expected chains that move, got {chains[0].flat[0]} everywhere: a frozen chain has no error, "
            "run longer or improve the acceptance"
        )


def _autocovariance(chains: np.ndarray) -> np.ndarray:  # (n_chains, n_steps) -> (n_steps // 2 + 1,)
    """Γ(t) = Σ_chains Σ_i δ_i δ_{i+t} / n_chains (n_steps - t), by FFT, for lags up to half a chain."""
    n_chains, n_steps = chains.shape
    length = next_fast_len(2 * n_steps, real=True)
    power = np.abs(rfft(chains - chains.mean(), length)) ** 2
    lags = np.arange(n_steps // 2 + 1)
    return irfft(power.sum(0), length)[lags] / (n_chains * (n_steps - lags))


def _window(correlation: np.ndarray, n: int) -> int:
    """First W with e^{-W/τ} < τ / √(W n), where 2 τ_int(W) = coth(S / 2τ); else the last lag."""
    integrated = np.maximum(0.5 + np.abs(correlation[1:]).cumsum(), 0.5 + 1e-9)
    decay = _WINDOW_FACTOR / np.log((2 * integrated + 1) / (2 * integrated - 1))
    windows = np.arange(1, len(correlation))
    enough = np.flatnonzero(np.exp(-windows / decay) < decay / np.sqrt(windows * n))
    return int(windows[enough[0]] if len(enough) else windows[-1])
