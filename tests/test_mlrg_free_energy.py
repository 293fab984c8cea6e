"""Free-energy recursions against exact partition sums."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lattices.exact import ising_chain_log_z, ising_torus_log_z
from mlrg.couplings import CouplingSpace
from mlrg.free_energy import extended_log_z, inhomogeneous_part


def chain(extent: int, couplings: Tensor) -> float:
    return ising_chain_log_z(extent, float(couplings[0]))


def torus(extent: int, couplings: Tensor) -> float:
    return ising_torus_log_z((extent, extent), float(couplings[0]))


def decimated(couplings: Tensor) -> Tensor:
    return torch.atanh(couplings.tanh().square())


def test_decimation_of_the_chain_is_exact() -> None:
    couplings = torch.tensor([0.8], dtype=torch.float64)
    assert extended_log_z(chain, decimated, couplings, 4, 4, dimension=1) == pytest.approx(
        chain(64, couplings), rel=1e-12
    )
    g = inhomogeneous_part(chain, decimated, couplings, 4, dimension=1)
    assert g == pytest.approx((math.log(2) + 0.5 * math.log(math.cosh(2 * 0.8))) / 2, rel=1e-12)


def test_a_wrong_map_is_seen() -> None:
    couplings = torch.tensor([0.8], dtype=torch.float64)
    wrong = extended_log_z(chain, lambda J: 0.9 * J, couplings, 4, 4, dimension=1)
    assert abs(wrong - chain(64, couplings)) > 0.1


def test_the_square_lattice_near_criticality() -> None:
    """A map with the right slope predicts log Z of 64² from 8² and 16² to 2e-4 of a nat per site."""
    critical = math.log(1 + math.sqrt(2)) / 2
    couplings = torch.tensor([critical + 0.002], dtype=torch.float64)
    predicted = extended_log_z(torus, lambda J: critical + 2 * (J - critical), couplings, 8, 3)
    assert abs(predicted - torus(64, couplings)) / 64**2 < 2e-4


def test_it_stays_where_the_map_is_known() -> None:
    space = CouplingSpace(("nearest",), (0.42,), (0.46,))
    with pytest.raises(ValueError, match="trained region"):
        extended_log_z(torus, lambda J: 2 * J, torch.tensor([0.45], dtype=torch.float64), 4, 3, space=space)
    with pytest.raises(ValueError, match="n_steps"):
        extended_log_z(torus, lambda J: J, torch.tensor([0.45], dtype=torch.float64), 4, 0)
