"""Averages with honest errors: weighted samples, correlated chains, effective sample sizes.

Samples are numpy arrays or torch tensors, of shape (n,) when independent and (n_chains, n_steps) when
correlated. Arithmetic is float64, results are plain floats; input without an answer raises, never gives NaN.
"""

from lattices.statistics.chains import (
    chain_function,
    chain_mean,
    integrated_autocorrelation_time,
)
from lattices.statistics.estimate import (
    Estimate,
)
from lattices.statistics.means import (
    bootstrap,
    jackknife,
    reweighted_mean,
)
from lattices.statistics.weights import (
    EffectiveSampleSize,
    effective_sample_size,
    forward_effective_sample_size,
    log_mean_exp,
)

__all__ = [
    "EffectiveSampleSize",
    "Estimate",
    "bootstrap",
    "chain_function",
    "chain_mean",
    "effective_sample_size",
    "forward_effective_sample_size",
    "integrated_autocorrelation_time",
    "jackknife",
    "log_mean_exp",
    "reweighted_mean",
]
