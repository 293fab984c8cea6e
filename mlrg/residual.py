"""Residual KL: what the student cannot imitate, the truncation error of one renormalization-group step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lattices.statistics import Estimate
from mlrg.ensembles import Ensemble, chain_sums

Side = tuple[Ensemble, Tensor, Tensor]
"""An ensemble, its fields on the common lattice, and its couplings."""


def residual_kl(teacher: Side, student: Side, log_zeta: float) -> Estimate:
    """KL(teacher ‖ student) on the common lattice, to second order in the difference of their test statistics.

        KL ≈ ½ Δᵀ Σ⁻¹ Δ - tr(Σ⁻¹ Cov Δ)/2,    Δ = ⟨g(c/ζ)⟩_teacher - ⟨g(c)⟩_student,    Σ = Cov_student(g)

    with g the moments c², c⁴, c⁶, neighbouring products and M², M⁴, M⁶. A lower bound up to third order in Δ that
    asks nothing of the flows; the second term removes the statistical bias. Error by the Gaussian law of Δ.

    Args:
        teacher, student: ensembles, their fields on the common lattice, J and J'.
        log_zeta: of the match.
    """
    (large, blocked, couplings), (small, own, at) = teacher, student
    scale = own.square().mean().sqrt()
    first = _statistics(blocked * math.exp(-log_zeta) / scale)
    second = _statistics(own / scale)
    mean_large, noise_large, _ = _weighted(first, large.weights(couplings), large.chain)
    mean_small, noise_small, covariance = _weighted(second, small.weights(at), small.chain)
    difference, noise = mean_large - mean_small, noise_large + noise_small
    keep = covariance.diagonal() > 1e-12 * covariance.diagonal().max()
    inverse = torch.linalg.pinv(covariance[keep][:, keep], rtol=1e-10, hermitian=True)
    delta, noise = difference[keep], noise[keep][:, keep]
    value = 0.5 * float(delta @ inverse @ delta - torch.trace(inverse @ noise))
    spread = inverse @ noise
    error = float((delta @ inverse @ noise @ inverse @ delta + 0.5 * torch.trace(spread @ spread)).clamp(min=0).sqrt())
    return Estimate(value, error, len(large.x))


def _weighted(values: Tensor, weights: Tensor, chain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance of the mean over independent chains, covariance of one field."""
    mean = weights @ values
    centred = values - mean
    terms = chain_sums(centred * weights[:, None], chain)
    return mean, terms.T @ terms, centred.T @ (centred * weights[:, None])


def _statistics(c: Tensor) -> Tensor:  # (n, *coarse, *target) -> (n, n_statistics)
    """Moments of one cell, of the whole, and of neighbours along each axis; of every component of a vector field."""
    flat = c.flatten(1)
    total = flat.mean(1)
    columns = [flat.pow(k).mean(1) for k in (2, 4, 6)] + [total.pow(k) for k in (2, 4, 6)]
    columns += [(c * c.roll(1, axis)).flatten(1).mean(1) for axis in range(1, c.ndim) if c.shape[axis] > 1]
    return torch.stack(columns, 1)
