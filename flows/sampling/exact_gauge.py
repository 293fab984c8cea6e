"""Independent samples of two-dimensional gauge theory: no Markov chain, no frozen charge, exact density."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from flows.distribution import require_dtype
from flows.sampling.class_functions import OnePlaquette, order_of
from flows.sampling.gauge_plane import GaugePlane
from lattices.exact import character_expansion, gauge_torus_log_z
from lattices.gauge import require_links
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge


@final
class ExactPlane(GaugePlane):
    """e^{-S} / Z of Wilson's action on a torus in d = 2, sampled plaquette by plaquette.

        log q(U) = -S(U) - log Z,    Z = Σ_r (c_r / d_r)^V

    The oracle for samplers that freeze, at any β and V: independent samples with exact densities. Cost V; the last
    plaquettes take some f_1(1) = e^β / c₀ proposals.

    Args:
        action: U(1) or SU(N) with `rectangle` 0 on two axes.
        dtype: real type of densities and samples (complex partner for SU(N)).

    Symmetries: those of the action.
    References: Migdal 1975, Sov. Phys. JETP 42, 413 (the solution by characters).
    """

    log_z: Tensor

    def __init__(self, action: U1Gauge | SUNGauge, dtype: torch.dtype = torch.float64) -> None:
        if not isinstance(action, U1Gauge | SUNGauge):
            raise TypeError(f"expected U1Gauge or SUNGauge, got {type(action).__name__}: other theories are not solved")
        if len(action.extents) != 2 or action.rectangle:
            raise ValueError(f"expected two dimensions and rectangle = 0, got {action}: others are not solved")
        group = require_links(action.field)
        n, beta = order_of(group), action.beta
        super().__init__(action.field, character_expansion(n, beta), OnePlaquette(group, beta).draw)
        self.action, self.symmetries = action, action.symmetries
        self.register_buffer("log_z", torch.tensor(gauge_torus_log_z(action.extents, n, beta), dtype=dtype))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch,)
        x = require_dtype(self, self.field.validate(x, values=False))
        return -self.action.energy(x) - self.log_z

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch, *event)
        return self.action.force(x.detach())

    @classmethod
    def examples(cls) -> Iterator[ExactPlane]:
        """U(1) in both precisions, and SU(2)."""
        yield cls(U1Gauge(extents=(2, 3), beta=0.8))
        yield cls(SUNGauge(extents=(2, 2), n=2, beta=1.0))
        yield cls(U1Gauge(extents=(2, 2), beta=1.0), dtype=torch.float32)
