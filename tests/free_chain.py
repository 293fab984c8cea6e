"""Free fields on a ring, decimated: a renormalization group step in closed form, with students that are exact.

    S = Σ_x [(φ_{x+1} - φ_x)² + J φ_x²],    J' = 4J + J²,    ζ² = 2 + J,    ∂h'/∂h = (4 + J) / √(2 + J)

Integrating every other site out leaves the same action on half as many, exactly and on every ring.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flows.bases import GaussianField
from lattices.blocking import Blocking
from lattices.theories.families import Section
from lattices.theories.phi4 import Phi4Family
from mlrg.couplings import CouplingSpace
from mlrg.ensembles import Ensemble
from mlrg.lessons import Draw
from mlrg.student import Student

SPACE = CouplingSpace(("mass_squared",), (0.1,), (12.0,))


def family(*extents: int) -> Section:
    """Free fields; the mass is the one coupling."""
    return Section(Phi4Family(extents, ("kinetic", "mass_squared")), ("mass_squared",), (1.0, 0.0), ((0.0,), (1.0,)))


def exact_image(mass_squared: float) -> Tensor:  # -> (2,)
    """J' and log ζ of one decimation."""
    return torch.tensor([4 * mass_squared + mass_squared**2, math.log(2 + mass_squared) / 2], dtype=torch.float64)


def exact_jacobian(mass_squared: float) -> Tensor:  # -> (2, 1)
    """∂(J', log ζ)/∂J."""
    return torch.tensor([[4 + 2 * mass_squared], [0.5 / (2 + mass_squared)]], dtype=torch.float64)


def exact_response(mass_squared: float) -> float:
    """∂h'/∂h."""
    return (4 + mass_squared) / math.sqrt(2 + mass_squared)


def blocked_spectrum(where: Section, couplings: Tensor, blocking: Blocking, n_blockings: int) -> Tensor:
    """Variances of the modes after so many blockings."""
    spectrum = 0.5 / (couplings[0] + where.field.lattice.laplacian_spectrum().double())
    for _ in range(n_blockings):
        spectrum = blocking.spectrum(spectrum)
    return spectrum


def draws(where: Section, n: int) -> Draw:
    """Independent exact samples."""

    def draw(couplings: Tensor, generator: torch.Generator) -> Ensemble:
        x, log_prob = GaussianField.of(where.at(couplings)).sample_with_log_prob(n, generator=generator)
        return Ensemble(where, x, log_prob, torch.arange(n))

    return draw


class ExactStudent(Student):
    """The exact law of blocked free fields."""

    def __init__(self, where: Section, n_blockings: int, kind: str = "decimation") -> None:
        self.family, self.space, self.blocking, self.n_blockings = where, SPACE, Blocking(kind), n_blockings

    def log_prob(self, c: Tensor, couplings: Tensor) -> Tensor:
        axes = tuple(range(1, c.ndim))
        spectrum = blocked_spectrum(self.family, couplings, self.blocking, self.n_blockings)
        power = torch.fft.fftn(c, dim=axes, norm="ortho").abs().square() / spectrum
        return -(power + (2 * math.pi * spectrum).log()).flatten(1).sum(1) / 2

    def scores(self, c: Tensor, couplings: Tensor) -> Tensor:
        def scaled(parameters: Tensor) -> Tensor:
            return self.log_prob(c * (-parameters[-1]).exp(), parameters[:-1]) - c[0].numel() * parameters[-1]

        return torch.func.jacfwd(scaled)(torch.cat([couplings, couplings.new_zeros(1)]))
