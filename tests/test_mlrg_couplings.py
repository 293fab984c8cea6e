"""Couplings and ensembles: boxes, even spreads, and reweighting of free fields against closed forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mlrg.couplings import CouplingSpace
from mlrg.ensembles import Ensemble, chain_sums
from mlrg.proposals import spread
from tests.free_chain import draws, family

PLANE = CouplingSpace(("beta", "quartic"), (0.5, -1.0), (0.7, 3.0))


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ring(mass_squared: float, n: int = 4000) -> Ensemble:
    return draws(family(8), n)(torch.tensor([mass_squared]).double(), seeded())


def mean_square(mass_squared: float) -> float:
    """⟨Σ φ²⟩ of the free ring of 8 sites."""
    return float((0.5 / (mass_squared + family(8).field.lattice.laplacian_spectrum().double())).sum())


def test_units_of_the_box() -> None:
    torch.testing.assert_close(PLANE.centre, torch.tensor([0.6, 1.0]).double())
    torch.testing.assert_close(PLANE.scale, torch.tensor([0.1, 2.0]).double())
    couplings = PLANE.sample(40, seeded())
    torch.testing.assert_close(PLANE.centre + PLANE.scale * PLANE.unit(couplings), couplings)
    torch.testing.assert_close(couplings[:20] + couplings[20:], (2 * PLANE.centre).expand(20, 2))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_lessons_are_spread_inside_the_box(n: int) -> None:
    line = CouplingSpace(("beta",), (0.5,), (0.7,))
    assert torch.allclose(spread(line, n).mean(), line.centre)
    for space in (PLANE, line):
        assert space.contains(spread(space, n)).all()
        assert len(spread(space, n).unique(dim=0)) == n


def test_reweighting_reaches_nearby_couplings_exactly() -> None:
    """⟨Σ φ²⟩ at m² = 0.6 from fields drawn at 0.5; without weights it is refuted."""
    fields, at = ring(0.5), torch.tensor([0.6]).double()
    squares, weights = fields.x.square().sum(1), fields.weights(at)
    mean = weights @ squares
    error = (weights * (squares - mean)).norm()
    assert fields.ess(at) > 0.5
    assert abs(mean - mean_square(0.6)) < 4 * error
    assert abs(squares.mean() - mean_square(0.5)) < 4 * squares.std() / len(squares) ** 0.5
    assert abs(squares.mean() - mean_square(0.6)) > 10 * error
    torch.testing.assert_close(fields.operators(at)[:, 0], squares)
    assert fields.ess(torch.tensor([0.5]).double()) == pytest.approx(1.0, abs=1e-9)


def test_parts_are_whole_chains() -> None:
    fields = ring(0.5, 60)._replace(chain=torch.arange(20).repeat_interleave(3))
    part = fields.part(0.3)
    assert len(part.x) == 18
    assert part.chain.unique().tolist() == list(range(6))
    assert len(fields.part(1e-6).x) == 3
    values = torch.randn(60, 2, generator=seeded()).double()
    torch.testing.assert_close(chain_sums(values, fields.chain), values.reshape(20, 3, 2).sum(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CouplingSpace((), (), ()), "as many bounds"),
        (lambda: CouplingSpace(("a",), (0.0,), (float("inf"),)), "lower < upper"),
        (lambda: CouplingSpace(("a",), (0.0,), (1.0,), odd=("a",)), "different names"),
        (lambda: PLANE.require(torch.tensor([0.6, 4.0])), r"got beta=0.6, quartic=4: train a wider teacher"),
        (lambda: PLANE.require(torch.tensor([0.6, float("nan")])), "trained region"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
