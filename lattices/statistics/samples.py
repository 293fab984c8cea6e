"""Samples as checked float64 arrays, and the randomness to resample them."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike

Samples = ArrayLike | torch.Tensor
Generator = np.random.Generator | torch.Generator


def checked_samples(name: str, values: Samples, *dimensions: int, minus_infinity: bool = False) -> np.ndarray:
    """float64 array of at least two real numbers in the given number of dimensions."""
    array = _as_float64(name, values)
    if array.ndim not in dimensions or array.size < 2 or array.shape[-1] < 2:
        shapes = " or ".join({1: "(n,)", 2: "(n_chains, n_steps)"}[d] for d in dimensions)
        raise ValueError(f"expected {name} of shape {shapes} with n >= 2, got {array.shape}: reshape or add samples")
    bad = ~np.isfinite(array) & ~(minus_infinity & (array == -math.inf))
    if bad.any():
        raise ValueError(
            f"expected finite {name}, got {array[bad][0]} at {bad.sum()} of {array.size} samples: "
            "find the samples where the action or the density overflows"
        )
    return array


def _as_float64(name: str, values: Samples) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values if values.is_complex() else values.double()).numpy()
    if np.iscomplexobj(values):
        raise TypeError(f"expected real {name}, got complex numbers: pass their real and imaginary parts")
    return np.asarray(values, dtype=np.float64)


def checked_log_weights(log_weights: Samples, *dimensions: int) -> np.ndarray:
    """Logarithms of weights, of which some but not all may vanish."""
    logs = checked_samples("log_weights", log_weights, *(dimensions or (1,)), minus_infinity=True)
    if not np.isfinite(logs).any():
        raise ValueError("expected a positive weight, got -inf for all: the samples miss the support of the target")
    return logs


def numpy_generator(generator: Generator | None) -> np.random.Generator:
    if generator is None or isinstance(generator, np.random.Generator):
        return np.random.default_rng() if generator is None else generator
    if isinstance(generator, torch.Generator):
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        return np.random.default_rng(int(seed))
    raise TypeError(f"expected a numpy or torch generator, got {generator!r}: pass torch.Generator().manual_seed(1)")
