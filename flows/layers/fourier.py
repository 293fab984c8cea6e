"""FourierScaling: the most general linear layer that keeps translations, the point group and the sign."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from flows.bijection import Bijection, Scored
from flows.context import checked_context
from flows.spectral import multiply_modes, point_group_orbits, require_real_sites
from lattices.fields import FieldSpace, Real
from lattices.invariance import PointGroup, SignFlip, Translations
from lattices.lattice import Lattice


@final
class FourierScaling(Bijection):
    """Rescale every Fourier mode, all modes of a point-group orbit alike; the identity at the start.

        x = F⁻¹ e^{s(k)} F z,   log|det| = Σ_k s(k),   s(k) = s₀(orbit of k) + Σ_a s_a(orbit of k) c_a

    The global partner of local layers: it trains the two-point function alone, exactly and in one step. The
    score is closed, s_x = F⁻¹ e^{-s(k)} F s_z. Cost O(V log V), about V / 2ᵈ d! parameters.

    Args:
        field: real fields on sites; components share the scales.
        n_context: how many numbers c_a the log-scales depend on, linearly.
        dtype: of the parameters, to be that of the fields.

    Symmetries: translations, point group, sign flip.
    """

    orbits: Tensor

    def __init__(self, field: FieldSpace, n_context: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.domain = self.codomain = require_real_sites(field, "a Fourier layer")
        self.symmetries = (Translations(), PointGroup(), SignFlip())
        lattice = field.lattice
        orbits = point_group_orbits(lattice.coordinates(), lattice.extents)
        self.register_buffer("orbits", orbits.reshape(lattice.extents), persistent=False)
        n_orbits = int(orbits.max()) + 1
        self.log_scale = nn.Parameter(torch.zeros(n_orbits, dtype=dtype))
        self.n_context = n_context
        if n_context:
            self.response = nn.Parameter(torch.zeros(n_context, n_orbits, dtype=dtype))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._scale(z, self._log_gain(context))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._scale(x, -self._log_gain(context))

    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        with torch.no_grad():
            log_gain = self._log_gain(context)
            return Scored(*self._scale(z, log_gain), self._scale(score, -log_gain)[0])

    def _log_gain(self, context: Tensor | None) -> Tensor:  # -> (*extents) or (batch, *extents)
        if not self.n_context:
            return self.log_scale[self.orbits]
        return (self.log_scale + checked_context(context, self.n_context) @ self.response)[..., self.orbits]

    def _scale(self, x: Tensor, log_gain: Tensor) -> tuple[Tensor, Tensor]:
        log_det = math.prod(self.domain.target.shape) * log_gain.sum(self.domain.lattice.axes)
        return multiply_modes(self.domain, log_gain.exp(), x), log_det.expand(len(x))

    @classmethod
    def examples(cls) -> Iterator[FourierScaling]:
        """On a square, on the same square with two couplings, and for two components on a rectangle."""
        square = FieldSpace(Lattice((4, 4)))
        yield cls(square)
        yield cls(square, n_context=2)
        yield cls(FieldSpace(Lattice((3, 4)), Real(2)))
