"""How do I bring my own theory? One class: its field space, energy, symmetries, and examples.

The massive sine-Gordon theory S = Σ_x [Σ_μ (φ_{x+μ} - φ_x)² + m² φ² + α (1 - cos βφ)] is not in the library. As a
file in `lattices/theories/` this class would also appear on the command line, and its laws would be tested; here
they are called by hand (`tests/test_examples.py`). Answer: on a ring of 8 sites with m² = 0.3, α = 1, β = 3 the
flow's log Z agrees with the transfer matrix T(φ, φ') = exp(-(φ - φ')² - ½V(φ) - ½V(φ')), log Z = log Tr T⁸.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.architectures.continuous import Continuous
from flows.sampling.reweighting import reweight
from flows.trained import refined
from flows.training import fit
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem
from lattices.action import Action
from lattices.fields import FieldSpace, Transformation
from lattices.invariance import PointGroup, SignFlip, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice


@dataclass(frozen=True)
class SineGordon(Action):
    """Massive sine-Gordon theory.

    Args:
        extents: sites along each axis.
        mass_squared: m² > 0 in lattice units.
        strength: α of the cosine.
        wave_number: β of the cosine.
    """

    extents: tuple[int, ...]
    mass_squared: float
    strength: float
    wave_number: float

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents))

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return Translations(), PointGroup(), SignFlip()

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def potential(self, x: Tensor) -> Tensor:  # any shape
        """V(φ) = m² φ² + α (1 - cos βφ)."""
        return self.mass_squared * x**2 + self.strength * (1 - torch.cos(self.wave_number * x))

    def energy(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
        kinetic = sum((x.roll(-1, axis) - x) ** 2 for axis in self.field.lattice_axes)
        return (kinetic + self.potential(x)).flatten(1).sum(1)

    def gaussian_spectrum(self) -> Tensor:  # -> extents
        """Variances of the modes with the cosine expanded to second order."""
        gap = self.mass_squared + self.strength * self.wave_number**2 / 2
        return 0.5 / (gap + Lattice(self.extents).laplacian_spectrum())

    @classmethod
    def examples(cls) -> Iterator[SineGordon]:
        """A ring and a small torus."""
        yield cls(extents=(8,), mass_squared=0.3, strength=1.0, wave_number=3.0)
        yield cls(extents=(3, 4), mass_squared=0.5, strength=0.4, wave_number=2.0)


def transfer_matrix_log_z(action: SineGordon, n_points: int = 400, reach: float = 6.0) -> float:
    """log Tr T^L on a ring, by the trapezoidal rule: exponentially accurate."""
    x = torch.linspace(-reach, reach, n_points, dtype=torch.float64)
    half = action.potential(x) / 2
    matrix = torch.exp(-((x[:, None] - x) ** 2) - half[:, None] - half) * (x[1] - x[0])
    return float((torch.linalg.eigvalsh(matrix) ** action.extents[0]).sum().log())


def main(n_steps: int = 15, n_samples: int = 20_000, batch: int = 4096) -> dict[str, float]:
    """Train a flow for the new theory, reweight, compare with the transfer matrix."""
    generator = torch.Generator().manual_seed(0)
    action = next(SineGordon.examples())
    flow = Continuous(frequencies=(0.5, 1.0, 1.5, 2.0), n_times=3).build(action)
    fit(Problem(flow, action), NaturalGradient(n_samples=batch), n_steps, generator=generator)
    samples = reweight(refined(flow), action, n_samples, generator)
    ess, log_z, exact = samples.effective_sample_size(), samples.log_z(), transfer_matrix_log_z(action)
    print(f"ESS    {ess}\nlog Z  {log_z}, transfer matrix {exact:.6f}")
    return {"ess": ess.value, "log_z_z": log_z.z_score(exact), "log_z_error": log_z.error}


if __name__ == "__main__":
    main()
