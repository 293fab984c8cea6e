"""What is tabulated and drawn of spins and of densities on spheres and tori: exact rows, identities, figures."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flows.quantities import (
    DensityQuantities,
    GaugeQuantities,
    Quantities,
    ScalarQuantities,
    SpinQuantities,
    quantities,
)
from flows.quantities.spins import second_moment_length
from flows.tables import Column, table
from lattices.action import Action
from lattices.statistics import Estimate, chain_function, effective_sample_size, jackknife, log_mean_exp
from lattices.theories import theories
from lattices.theories.clock import Clock
from lattices.theories.on import ON
from lattices.theories.sphere_mixture import SphereMixture
from lattices.theories.spin_model import SpinModel
from lattices.theories.torus_correlated import TorusCorrelated
from lattices.theories.torus_mixture import TorusMixture
from lattices.theories.xy import XY
from tests.laws.fields import generator

DENSITIES = [*SphereMixture.examples(), *TorusMixture.examples(), *TorusCorrelated.examples(), XY((1,), 1.0, 0.7)]
SPINS = [
    XY((2, 3), 0.4),
    XY((3, 2), 0.3, crystal=0.5, directions=3),
    ON((2, 2), 4, 0.5),
    ON((2, 3), 3, -0.4),
    ON((5,), 3, 0.8),
    ON((1, 4), 2, 0.6),
    Clock((6,), 5, 0.7),
    Clock((3, 3), 6, 0.3),
    SpinModel((3, 3), 3, 0.2, 0.2),
    0.5 * XY((2, 2, 2), 0.4) + 0.1 * XY((2, 2, 2), 0.4, 1.0),
]


def weighted(action: Action, n: int = 20_000) -> tuple[Tensor, Tensor]:
    x = action.field.random(n, generator(4))
    log_weights = -action(x)
    assert effective_sample_size(log_weights).value > 0.05
    return x, log_weights


def rows(action: Action, x: Tensor, log_weights: Tensor) -> dict[str, Estimate]:
    looked_at = quantities(action)
    return looked_at.rows(looked_at.measure(x), partial(jackknife, log_weights=log_weights))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("xy", SpinQuantities),
        ("on", SpinQuantities),
        ("clock", SpinQuantities),
        ("spin-model", SpinQuantities),
        ("sphere-mixture", DensityQuantities),
        ("torus-mixture", DensityQuantities),
        ("torus-correlated", DensityQuantities),
        ("phi4", ScalarQuantities),
        ("ising", ScalarQuantities),
        ("u1-gauge", GaugeQuantities),
    ],
)
def test_every_theory_has_its_quantities(name: str, kind: type[Quantities]) -> None:
    for action in theories()[name].examples():
        assert type(quantities(action)) is kind
        assert quantities(action).slow[1] in quantities(action).measure(action.field.random(2, generator()))


@pytest.mark.parametrize("action", [*SPINS, *DENSITIES], ids=str)
def test_rows_agree_with_what_is_exact(action: Action) -> None:
    x, log_weights = weighted(action)
    found, exact = rows(action, x, log_weights), quantities(action).exact()
    for row in exact.keys() & found.keys():
        spread = abs(found[row].value - exact[row]) if found[row].error > 1e10 else 0.0  # what never moves
        assert spread < 1e-12 if spread else abs(found[row].z_score(exact[row])) < 4, row
    if "log Z" in exact:
        total = log_measure(action) * action.field.lattice.volume
        assert abs(log_mean_exp(log_weights).z_score(exact["log Z"] - total)) < 4


def log_measure(action: Action) -> float:
    """Of one site."""
    from lattices.exact import on_link
    from lattices.fields import Sphere
    from lattices.theories.clock import ClockSpins

    target = action.field.target
    if isinstance(target, ClockSpins):
        return float(np.log(target.q))
    return on_link(target.n + 1 if isinstance(target, Sphere) else 2, 0.0).log_measure


def test_what_is_known_exactly() -> None:
    known = {action: set(quantities(action).exact()) for action in SPINS[:8]}
    assert {"log Z", "⟨E⟩", "V⟨m²⟩"} <= known[XY((2, 3), 0.4)]
    assert {"log Z", "⟨E⟩", "V⟨m²⟩"} <= known[Clock((3, 3), 6, 0.3)]
    assert "log Z" not in known[XY((3, 2), 0.3, crystal=0.5, directions=3)]
    assert {"log Z", "⟨E⟩"} <= known[ON((2, 2), 4, 0.5)]
    assert "log Z" not in quantities(XY((8, 8), 1.0)).exact()
    assert quantities(Clock((6,), 5, 0.7)).identity is None


@pytest.mark.parametrize("action", [a for a in SPINS if not isinstance(a, Clock)], ids=str)
def test_identity_notices_another_action(action: Action) -> None:
    x, log_weights = weighted(action)
    identity = quantities(action).identity
    assert identity is not None
    right, wrong = (quantities(a).measure(x)[identity.name] for a in (action, 0.3 * action))
    assert abs(jackknife(lambda v: v, right, log_weights=log_weights).z_score(0.0)) < 4
    assert abs(jackknife(lambda v: v, wrong, log_weights=log_weights).z_score(0.0)) > 6


@pytest.mark.parametrize("action", [SphereMixture((1.0, 0.0, 2.0), concentration=2.0), TorusMixture()], ids=str)
def test_identity_of_densities_notices_another_one(action: Action) -> None:
    x, log_weights = weighted(action)
    wrong = quantities(0.3 * action).measure(x)["schwinger_dyson"]
    assert abs(jackknife(lambda v: v, wrong, log_weights=log_weights).z_score(0.0)) > 6


def test_moments_of_a_torus_by_quadrature() -> None:
    grid = -np.pi + 2 * np.pi * torch.arange(64, dtype=torch.float64) / 64
    for action in (TorusMixture(concentration=2.0), TorusCorrelated((1, -1), 0.4, -1.3), TorusCorrelated()):
        x = torch.cartesian_prod(grid, grid)
        moments = quantities(action).measure(x)["moments"]
        average = (-action(x)).softmax(0) @ moments
        looked_at = quantities(action)
        assert isinstance(looked_at, DensityQuantities)
        for name, value in zip(looked_at.names, average.tolist()):
            assert looked_at.exact()[name] == pytest.approx(value, abs=1e-12), name


def test_names_are_different() -> None:
    for action in (TorusMixture(), SphereMixture.four_on_su2(), TorusCorrelated((1, 0, 2, 1, 1))):
        looked_at = quantities(action)
        assert isinstance(looked_at, DensityQuantities)
        assert len(set(looked_at.names)) == len(looked_at.names)
        assert looked_at.measure(action.field.random(2, generator()))["moments"].shape == (2, len(looked_at.names))
    assert "⟨cos (t₁-t₂)⟩" in quantities(TorusMixture()).exact()


@pytest.mark.parametrize(
    "action",
    [XY((5,), 0.3), ON((3, 4), 3, 0.3), ON((2, 3, 2), 4, 0.2), Clock((4, 4), 4, 0.3), *DENSITIES[1:5]],
    ids=str,
)
def test_figures(action: Action, tmp_path: Path) -> None:
    x = action.field.random(300, generator())
    log_weights, looked_at = -action(x), quantities(action)
    measured = looked_at.measure(x) | {"log_weights": log_weights}
    columns = [Column("flow, reweighted", rows(action, x, log_weights))]
    looked_at.draw(columns, measured | {"x": x}, torch.arange(300), tmp_path)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert "metropolis.png" in drawn
    expected = {"energy.png", "configuration.png", "correlator.png"}
    assert drawn >= (expected if isinstance(looked_at, SpinQuantities) else {"density.png"})
    assert all(path.stat().st_size > 3000 for path in tmp_path.glob("*.png"))
    assert table(columns, looked_at.exact())


def test_chains_start_from_fields() -> None:
    for action in (XY((4, 4), 1.0), Clock((4, 4), 5, 1.0), SphereMixture()):
        x = quantities(action).start(7, generator())
        assert action.field.validate(x).shape == (7, *action.field.event_shape)


@pytest.mark.parametrize("action", [XY((4, 4), 0.0), ON((2, 3), 3, 0.0)], ids=str)
def test_free_spins_have_a_table(action: Action) -> None:
    x = action.field.random(400, generator())
    chains = {name: v.reshape(4, 100, *v.shape[1:]) for name, v in quantities(action).measure(x).items()}
    assert quantities(action).rows(chains, chain_function)["ξ"].value >= 0
    square = x.flatten(1)[:, 0] ** 2
    for ratio in (0.5, 2.0):
        assert (second_moment_length(jackknife, ratio * square, square + 1e-3 * x.flatten(1)[:, 1], 4).value > 0) == (
            ratio > 1
        )
