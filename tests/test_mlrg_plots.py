"""Every figure is drawn from numbers that are known, with and without a fixed point or a monotone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from lattices.statistics import Estimate
from mlrg import plots
from mlrg.fixed_points import FixedPoint
from mlrg.moderator import GradientFlow, SmoothMap
from mlrg.scaling import Series
from tests.synthetic_lessons import KnownGroup

ONE, TWO = KnownGroup(), KnownGroup((0.38, 0.06), (2.0, 0.3))


def atlas(group: KnownGroup, kind: type, critical: bool = True) -> plots.Atlas:
    """A map that has not learned yet, with lessons of a known group and its true fixed point."""
    generator = torch.Generator().manual_seed(0)
    region = group.lessons_space
    moderator = kind(group.n, region.centre, region.scale, (4,), generator)
    with torch.no_grad():
        moderator.network[-1].weight.normal_(generator=generator)
    point = FixedPoint(group.star, group.matrix) if critical else None
    return plots.Atlas(moderator, group.space, point, group.lessons(5, generator, 5), "16 → 8")


def drawn(path: Path) -> bool:
    """Whether a figure is there and not empty: it has ink in every third of its height."""
    pixels = imread(path)[..., :3]
    return all(bool((third < 0.9).any()) for third in (pixels[: len(pixels) // 3], pixels[-len(pixels) // 3 :]))


@pytest.mark.parametrize("critical", [True, False])
def test_maps_of_one_and_two_couplings(tmp_path: Path, critical: bool) -> None:
    assert drawn(plots.coupling_map(atlas(ONE, SmoothMap, critical), tmp_path / "figures" / "one.png"))
    assert drawn(plots.flow_diagram(atlas(TWO, SmoothMap, critical), tmp_path / "two.png", n_grid=12))


def test_landscapes_need_a_monotone(tmp_path: Path) -> None:
    for group in (ONE, TWO):
        assert drawn(plots.monotone_landscape(atlas(group, GradientFlow), tmp_path / f"{group.n}.png"))
        with pytest.raises(ValueError, match="without a monotone"):
            plots.monotone_landscape(atlas(group, SmoothMap), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_estimates_and_convergence(tmp_path: Path) -> None:
    y_t, exact, unknown = Estimate(0.99, 0.01, 9), Estimate(0.125, 0.0, 1), Estimate(1, 0.1, 1)
    rows = {"$y_t$": (y_t, 1.0), "Δσ": (exact, 0.125), "ν": (unknown, None)}
    assert drawn(plots.estimates(rows, "answers", tmp_path / "estimates.png"))
    series = [Series(common, (4, 8), (Estimate(1.1, 0.01, 9), Estimate(1.05, 0.01, 9))) for common in (1, 2)]
    settled = {"$y_t$": (series, Estimate(1.0, 0.02, 1), 1.0), "Δσ": (series, None, None)}
    assert drawn(plots.convergence(settled, "convergence", tmp_path / "convergence.png"))


def test_densities_carry_the_exact_curve(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 1000, generator=generator, dtype=torch.float64)
    weights, x = torch.full((1000,), 1e-3), torch.linspace(-3, 3, 50)
    curve = (x, (-x.square() / 2).exp() / math.sqrt(2 * math.pi))
    panels = [plots.Densities(name, teacher, weights, student, weights, curve) for name in ("M", "product")]
    assert drawn(plots.matched_densities(panels, "densities", tmp_path / "densities.png"))
    assert drawn(plots.curve_with_diagonal(x, x.sinh(), 0.0, "exact", tmp_path / "curve.png"))
