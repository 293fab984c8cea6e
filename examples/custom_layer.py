"""How do I bring my own layer? One class: forward and inverse, each with the log-det of the map it applied.

Near the transition a Gaussian misses that the magnetisation M has two peaks. This layer moves M alone, with two
parameters: x = z + (g(M) - M), g(m) = w sinh(asinh(m/w) / d), so that log|det| = log g'(M); d > 1 splits the peak.
It commutes with translations, the point group and φ → -φ; its laws are called in `tests/test_examples.py`.
Answer: for φ⁴ on 4×4, m² = -1, λ = 0.5, the ESS of a trained Gaussian rises from 0.11 to 0.39 (n = 20 000).
Reference: log Z by transfer matrix (`lattices.exact.phi4_moments`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from flows.bases import GaussianField
from flows.bijection import Bijection, Chain
from flows.distribution import Transformed
from flows.layers.fourier import FourierScaling
from flows.sampling.reweighting import reweight
from flows.training import fit
from flows.updates.gradient import GradientUpdate
from flows.updates.update import Problem
from lattices.exact import phi4_moments
from lattices.fields import FieldSpace
from lattices.invariance import PointGroup, SignFlip, Translations
from lattices.lattice import Lattice
from lattices.theories.phi4 import Phi4


class MagnetisationStretch(Bijection):
    """x = z + (g(M) - M) with M = V⁻¹ Σ z and g(m) = w sinh(asinh(m/w) / d); the identity at d = 1.

    Args:
        field: real scalar fields on sites.
        width: initial w, in units of the field.
    """

    def __init__(self, field: FieldSpace, width: float = 0.3) -> None:
        super().__init__()
        self.domain = self.codomain = field
        self.symmetries = (Translations(), PointGroup(), SignFlip())
        self.log_width = nn.Parameter(torch.tensor(math.log(width), dtype=torch.float64))
        self.log_power = nn.Parameter(torch.zeros((), dtype=torch.float64))  # log d

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._moved(z, -self.log_power)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._moved(x, self.log_power)

    def _moved(self, x: Tensor, log_power: Tensor) -> tuple[Tensor, Tensor]:
        """m ↦ w sinh(p asinh(m/w)) and the logarithm of its slope p cosh(p asinh(m/w)) / √(1 + m²/w²)."""
        m, width = x.flatten(1).mean(1), self.log_width.exp()
        u = log_power.exp() * torch.asinh(m / width)
        log_slope = log_power + torch.cosh(u).log() - torch.log1p((m / width) ** 2) / 2
        shift = width * torch.sinh(u) - m
        return x + shift.reshape(-1, *[1] * (x.ndim - 1)), log_slope

    @classmethod
    def examples(cls) -> Iterator[MagnetisationStretch]:
        """A square and a ring."""
        yield cls(FieldSpace(Lattice((2, 3))))
        yield cls(FieldSpace(Lattice((5,))), width=1.0)


def trained_ess(action: Phi4, n_steps: int, n_samples: int, *layers: Bijection) -> tuple[float, float]:
    """ESS of a trained Gaussian behind the given layers, and how far its log Z is from the exact one (z-score)."""
    generator = torch.Generator().manual_seed(0)
    flow = Transformed(GaussianField.of(action), Chain(FourierScaling(action.field), *layers))
    fit(Problem(flow, action), GradientUpdate(learning_rate=0.03, batch_size=512), n_steps, generator=generator)
    samples = reweight(flow, action, n_samples, generator)
    exact = phi4_moments(action.extents, action.mass_squared, action.quartic).log_z
    return samples.effective_sample_size().value, samples.log_z().z_score(exact)


def main(n_steps: int = 200, n_samples: int = 20_000, extents: tuple[int, int] = (4, 4)) -> dict[str, float]:
    """Train with and without the layer, compare."""
    action = Phi4(extents, mass_squared=-1.0, quartic=0.5)
    without, _ = trained_ess(action, n_steps, n_samples)
    found, z_score = trained_ess(action, n_steps, n_samples, MagnetisationStretch(action.field, 1.0))
    print(f"ESS of a Gaussian {without:.3f}, with the layer {found:.3f}; log Z is {z_score:+.1f} errors from exact")
    return {"ess_without": without, "ess": found, "log_z_z": z_score}


if __name__ == "__main__":
    main()
