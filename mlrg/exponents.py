"""Exponents at a fixed point of the learned map, with bootstrap errors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lattices.statistics import Estimate
from mlrg.fixed_points import FixedPoint, newton
from mlrg.learning import Learned


class Exponents(NamedTuple):
    """What a critical fixed point says, each with its standard error over bootstrap replicas.

    y_t = log_b λ_1,   ν = 1/y_t,   Δσ = d/2 - log_b ζ*   (block averages; -log_b ζ* by decimation),
    y_h = log_b ∂h'/∂h,   y_2 = log_b |λ_2| < 0 of the leading irrelevant direction
    """

    couplings: tuple[Estimate, ...]
    y_t: Estimate
    nu: Estimate
    delta_sigma: Estimate
    y_h: Estimate
    irrelevant: tuple[Estimate, ...]


def exponents(learned: Learned, point: FixedPoint, dimension: int, blocking: str = "average", b: int = 2) -> Exponents:
    """Read the exponents off a critical point; replicas find their own, starting from it."""
    points = [newton(replica, point.couplings) for replica in learned.replicas]
    near = [(k, p) for k, p in enumerate(points, 1) if p is not None and _near(learned, p, point)]
    if 2 * len(near) < len(points):
        raise ValueError(
            f"expected most replicas to have the fixed point {point.couplings.tolist()}, got {len(near)} of "
            f"{len(points)}: the lessons are too noisy; take more samples or more lessons near it"
        )
    rows = torch.stack([_numbers(learned, p, k, dimension, blocking, b) for k, p in [(0, point), *near]])
    values, errors = rows[0], learned.inflation * _robust_deviation(rows[1:])
    estimates = [Estimate(float(v), float(e), len(near)) for v, e in zip(values, errors)]
    n = len(point.couplings)
    y_t, nu, delta, y_h = estimates[n : n + 4]
    return Exponents(tuple(estimates[:n]), y_t, nu, delta, y_h, tuple(estimates[n + 4 :]))


def _numbers(learned: Learned, point: FixedPoint, replica: int, dimension: int, blocking: str, b: int) -> Tensor:
    at = point.couplings[None]
    y = point.eigenvalues.abs().log() / math.log(b)
    scale = float(learned.log_scale(at, replica)) / math.log(b)
    delta = (dimension / 2 if blocking == "average" else 0.0) - scale
    response = float(learned.log_response(at, replica)) / math.log(b)
    return torch.cat([point.couplings, torch.stack([y[0], 1 / y[0]]), y.new_tensor([delta, response]), y[1:]])


def _near(learned: Learned, point: FixedPoint, reference: FixedPoint) -> bool:
    """Within one half-width of the region: replicas that jump to another fixed point do not count."""
    return bool(((point.couplings - reference.couplings).abs() < learned.moderator.scale).all())


def _robust_deviation(rows: Tensor) -> Tensor:
    """Half the central 68.3 % interval: a standard error that a few escaped replicas do not spoil."""
    low, high = (torch.quantile(rows, q, dim=0) for q in (0.1587, 0.8413))
    return (high - low) / 2
