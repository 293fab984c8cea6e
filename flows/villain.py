"""Villain's U(1) gauge theory in two dimensions: a free field with all its topological sectors, exactly sampled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from flows.bases import default_generator
from flows.distribution import Distribution, require_dtype
from lattices.fields import FieldSpace, Links
from lattices.gauge import CentreSymmetry, ChargeConjugation, GaugeInvariance, GaugeTransformation
from lattices.invariance import PointGroup, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.theories.u1_gauge import U1Gauge
from symmetries.lie import U1
from symmetries.spectra import wrap


@final
class Villain(Distribution):
    """The Gaussian of gauge theory: plaquettes with periodised normal weights on a torus in d = 2.

        q(θ) = Π_P w(θ_P) / Z,    w(θ) = Σ_n e^{-b (θ + 2πn)²/2},    Z = Σ_k [e^{-k²/2b} / √(2πb)]^V

    Samples are independent: the charge Q ~ e^{-b (2πQ)²/2V}, then plaquettes 2πQ/V + Gaussian noise of sum zero,
    then links with these plaquettes, uniform holonomies and a random gauge. What `GaussianField` is to scalar fields:
    a base that already has the right width, and every topological sector with nearly its right weight. Cost V.

    Args:
        lattice: two axes of at least two sites.
        stiffness: b > 0; e^{-1/2b} is the mean plaquette of an infinite lattice.
        dtype: of samples and densities.

    Symmetries: gauge, translations, point group, charge conjugation, centre.
    References: Villain 1975, J. Phys. France 36, 581.
    """

    log_normaliser: Tensor

    def __init__(self, lattice: Lattice, stiffness: float, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        if lattice.dimension != 2 or min(lattice.extents) < 2:
            raise ValueError(f"expected two axes of >= 2 sites, got {lattice.extents}: this is solved in d = 2 alone")
        if not (math.isfinite(stiffness) and stiffness > 0):
            raise ValueError(f"expected stiffness > 0, got {stiffness}: Haar measure is White(field)")
        self.field, self.stiffness = FieldSpace(lattice, Links(U1()), "links"), float(stiffness)
        self.symmetries: tuple[Symmetry, ...] = (GaugeInvariance(), Translations(), PointGroup())
        self.symmetries += (ChargeConjugation(), CentreSymmetry())
        volume = lattice.volume
        k = torch.arange(-200, 201, dtype=torch.float64)
        modes = -(k * k) / (2 * stiffness) - 0.5 * math.log(2 * math.pi * stiffness)
        self.register_buffer("log_normaliser", torch.logsumexp(volume * modes, 0).to(dtype))

    @classmethod
    def of(cls, action: U1Gauge, dtype: torch.dtype = torch.float64) -> Villain:
        """With the mean plaquette of Wilson's action: e^{-1/2b} = I₁(β)/I₀(β)."""
        from scipy.special import i0e, i1e

        if not isinstance(action, U1Gauge) or not action.beta > 0:
            raise ValueError(f"expected U1Gauge with beta > 0, got {action}: start from White(action.field)")
        return cls(action.field.lattice, -0.5 / math.log(i1e(action.beta) / i0e(action.beta)), dtype)

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        generator = default_generator(self.log_normaliser.device) if generator is None else generator
        x = self._links(self._flux(n, generator), generator)
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        x = self.field.act(GaugeTransformation(seed), x).to(self.log_normaliser)
        return x, self.log_prob(x)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch,)
        x = require_dtype(self, self.field.validate(x, values=False))
        return torch.logsumexp(self._exponents(x), -1).flatten(1).sum(1) - self.log_normaliser

    def _exponents(self, x: Tensor) -> Tensor:  # -> (batch, *extents, images)
        """-b (θ_P + 2πn)²/2 for the images n that matter."""
        (a, b), (first, second) = x.unbind(1), self.field.lattice_axes
        plaquette = wrap(a + b.roll(-1, first) - a.roll(-1, second) - b)
        reach = 1 + math.ceil(math.sqrt(80 / self.stiffness) / (2 * math.pi))
        images = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
        return -self.stiffness / 2 * (plaquette[..., None] + 2 * math.pi * images).square()

    def _flux(self, n: int, generator: torch.Generator) -> Tensor:  # -> (n, *extents)
        """Plaquettes, not wrapped, that add up to 2πQ."""
        volume, device = self.field.lattice.volume, generator.device
        spread = math.sqrt(volume / self.stiffness) / (2 * math.pi)
        q = torch.arange(-math.ceil(10 * spread) - 1, math.ceil(10 * spread) + 2, dtype=torch.float64, device=device)
        weights = torch.exp(-0.5 * (q / spread).square())
        charge = q[torch.multinomial(weights, n, replacement=True, generator=generator)]
        noise = torch.randn(n, *self.field.lattice.extents, generator=generator, dtype=torch.float64, device=device)
        noise = (noise - noise.mean((1, 2), keepdim=True)) / math.sqrt(self.stiffness)
        return 2 * math.pi / volume * charge[:, None, None] + noise

    def _links(self, flux: Tensor, generator: torch.Generator) -> Tensor:  # (n, *extents) -> (n, 2, *extents)
        """Links with these plaquettes: θ_2 = 0 on the first column, θ_1 = 0 but on the last, and two holonomies."""
        theta_2 = torch.cat([torch.zeros_like(flux[:, :1]), flux[:, :-1].cumsum(1)], 1)
        steps = flux[:, -1] + theta_2[:, -1]  # θ_1(x) - θ_1(x + 2̂) there
        column = torch.cat([torch.zeros_like(steps[:, :1]), -steps[:, :-1].cumsum(1)], 1)
        theta_1 = torch.cat([torch.zeros_like(flux[:, :-1]), column[:, None]], 1)
        turns = torch.rand(2, len(flux), 1, 1, generator=generator, dtype=flux.dtype, device=flux.device) * 2 * math.pi
        theta_1[:, -1:] += turns[0]
        theta_2[:, :, -1:] += turns[1]
        return torch.stack([theta_1, theta_2], 1)

    @classmethod
    def examples(cls) -> Iterator[Villain]:
        """Stiff and soft, in both precisions."""
        yield cls(Lattice((2, 3)), stiffness=0.25)
        yield cls(Lattice((2, 2)), stiffness=0.2)
        yield cls.of(U1Gauge((2, 3), beta=0.5), dtype=torch.float32)
