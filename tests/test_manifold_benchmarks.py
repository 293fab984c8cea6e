"""Benchmarks on manifolds train, measure and compare; divergences, splines and exponents are what they say."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from flows.architectures.harmonic import Harmonic
from flows.architectures.spin_continuous import SpinContinuous
from flows.sampling.choice import sampler_for
from flows.transforms.circular import circular_spline, wrap
from flows.updates.natural import NaturalGradient
from lattices.exact import xy_torus
from lattices.fields import Circle, Sphere
from lattices.theories.sphere_mixture import SphereMixture
from lattices.theories.xy import XY

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
UPDATE = NaturalGradient(n_samples=256, chunk=256, damping=1e-3)


@pytest.fixture
def run(load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Train and compare a case that takes a second; the JSON object of its last line."""

    def main(recipe, theory) -> dict:  # type: ignore[no-untyped-def, type-arg]
        monkeypatch.setitem(load("manifold_cases").CASES, "tiny", load("cases").Case(recipe.on(theory), 0.5, 2000))
        monkeypatch.setattr(load("manifold_peers"), "LONGEST", 0.01)
        monkeypatch.setattr(load("manifold_peers"), "N_CHAINS", 32)
        monkeypatch.setattr(sys, "argv", ["manifolds.py", "tiny", "--json", "--runs", str(tmp_path)])
        load("manifolds").main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return main


def test_a_density_is_learnt_and_compared(load, run) -> None:  # type: ignore[no-untyped-def]
    recipe = load("manifold_cases").Recipe(Harmonic(2, n_times=1, n_steps=4), UPDATE, 4)
    result = run(recipe, SphereMixture((1.0, 0.0, 0.0), concentration=1.0))
    assert result["kl"] < 0.01
    assert abs(result["kl"]) < 0.01 + 4 * result["kl_error"]
    assert result["kl"] == pytest.approx((1 / result["ess"] - 1) / 2, abs=4 * result["kl_error"])  # to leading order
    for key, exact in (("log_z", "reference"), ("mean", "mean_reference")):
        assert abs(result[key] - result[exact]) < 4 * result[f"{key}_error"], key
    assert (result["symbol"], result["iterations"], result["parameters"]) == ("⟨x₁⟩", 4, 8)
    assert [row["method"] for row in result["peers"]] == ["Harmonic", "HMC"]
    lines = [figure.markdown() for figure in load("figures").figures({**result, "kl_bar": -1.0})]
    assert "≥ 0.5 ✓" in lines[0]
    assert any("≤ -1.0 ✗ missed" in line for line in lines)
    assert len(lines) == 7 + len(result["peers"])


def test_spins_are_learnt_and_compared(load, run) -> None:  # type: ignore[no-untyped-def]
    recipe = load("manifold_cases").Recipe(SpinContinuous(n_steps=2), UPDATE, 2)
    result, exact = run(recipe, XY((2, 2), 0.8)), xy_torus((2, 2), 0.8)
    assert result["reference"] == pytest.approx(exact.log_z)
    assert result["mean_reference"] == pytest.approx(exact.energy)
    for key in ("log_z", "mean"):
        known = result["reference" if key == "log_z" else "mean_reference"]
        assert abs(result[key] - known) < 4 * result[f"{key}_error"], key
    assert [row["method"] for row in result["peers"]] == ["SpinContinuous", "clusters, heat bath", "HMC"]
    assert all(abs(row["mean"] - exact.energy) < 5 * row["error"] for row in result["peers"])


def test_divergence_is_that_of_normal_weights(load) -> None:  # type: ignore[no-untyped-def]
    kl, generator = load("manifold_peers").kl, torch.Generator().manual_seed(0)
    log_weights = 0.3 * torch.randn(50_000, generator=generator, dtype=torch.float64) + 2 - 0.045  # ⟨w⟩ = e²
    assert abs(kl(log_weights, 2.0).z_score(0.045)) < 4
    assert kl(log_weights, 2.0).error == pytest.approx(0.3 / 50_000**0.5, rel=0.02)
    assert abs(kl(log_weights, 2.1).z_score(0.045)) > 50


def test_every_case_can_be_built_and_reaches_for_something_known(load) -> None:  # type: ignore[no-untyped-def]
    known = load("manifold_cases")
    for name, case in known.CASES.items():
        problem, target = case.stages[-1].build(), case.action.field.target
        assert problem.flow.field == case.action.field, name
        assert isinstance(target, Circle | Sphere)
        assert case.n == 100_000
        if name in known.MOST_PARAMETERS:
            assert sum(p.numel() for p in problem.flow.parameters()) <= known.MOST_PARAMETERS[name]
    assert {*known.LARGEST_KL, *known.MOST_PARAMETERS, *known.ENERGIES} <= {*known.CASES}
    assert {name for name, case in known.CASES.items() if "-8-" in name} == {*known.ENERGIES}


def test_energies_by_clusters_are_right(load, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    peers, exact = load("manifold_peers"), xy_torus((2, 2), 1.0).energy
    monkeypatch.setattr(peers, "N_CHAINS", 32)
    right, wrong = (peers.chains("", sampler_for(a), a, 0.05, 20) for a in (XY((2, 2), 1.0), XY((2, 2), 1.5)))
    assert max(right.error, wrong.error) < 0.02
    assert abs(right.mean - exact) < 4 * right.error
    assert abs(wrong.mean - exact) > 6 * wrong.error


def test_splines_that_are_compared_agree(load) -> None:  # type: ignore[no-untyped-def]
    """Both are rational-quadratic on the same bins: only the floors of widths and slopes differ."""
    peers, generator = load("manifold_peers"), torch.Generator().manual_seed(0)
    x = wrap(torch.rand(500, generator=generator, dtype=torch.float64) * 6)
    equal = torch.zeros(500, 3 * peers.N_BINS + 1, dtype=torch.float64)
    equal[:, 2 * peers.N_BINS : -1] = math.log(math.expm1(1 - 1e-3))  # slopes of one, of normflows
    theirs, ours = peers.normflows_spline(x, equal), circular_spline(x, torch.zeros_like(equal))
    for a, b in zip(theirs, ours):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)
    logits = torch.randn(500, 3 * peers.N_BINS + 1, generator=generator, dtype=torch.float64)
    y, log_det = peers.normflows_spline(x, logits)
    back, opposite = peers.normflows_spline(y, logits, inverse=True)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(opposite, -log_det)


def test_splines_are_timed_and_trained(load, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    peers = load("manifold_peers")
    monkeypatch.setattr(peers, "N_POINTS", 64)
    rows = peers.speed(torch.float32, inverse=True, n=1)
    assert [(row["kind"], row["map"]) for row in rows] == [
        (kind, name) for kind in ("spline", "flow") for name in ("normflows", "ours")
    ]
    assert all(row["evaluate"] > 0 and row["backward"] > 0 for row in rows)
    errors, learnt = peers.rounding(torch.float64), list(peers.learning(n_steps=2, n=500))
    assert all(error < 1e-10 for error in errors.values())
    assert [row["map"] for row in learnt] == ["normflows", "ours"]
    assert all(0 < row["ess"] < 1 and row["kl"] > 0 for row in learnt)
    result = {"case": "manifold-peers", "rows": rows, "rounding": {"float64": errors}, "learning": learnt}
    figures = list(load("figures").figures(result))
    assert len(figures) == 2 * 4 + len(errors) + 2 * len(learnt)


def test_cost_is_measured(load) -> None:  # type: ignore[no-untyped-def]
    cost = load("manifold_cost")
    rows = cost.measure(dimensions=(1, 2, 3), n=1, n_samples=20, report=lambda _: None)
    assert len(rows) == 3 * len(cost.FAMILIES) - 1  # no coupling of a single angle
    assert all(row["seconds"] > 0 for row in rows)
    text = cost.table(rows)
    assert text.count("\n") == len(cost.FAMILIES)
    result = {"case": "manifold-cost", "rows": rows, "exponents": cost.exponents(rows)}
    assert len(list(load("figures").figures(result))) == len(rows) + len(cost.FAMILIES)


def test_exponents_are_slopes(load) -> None:  # type: ignore[no-untyped-def]
    rows = [{"architecture": "a", "dimension": d, "seconds": 2.0 * d**1.5} for d in (1, 2, 3, 5, 8)]
    rows[0]["seconds"] = 99.0  # of a circle: no part of it
    assert load("manifold_cost").exponents(rows) == {"a": pytest.approx(1.5, abs=1e-5)}


def test_what_is_not_shipped_runs_only_by_name(load) -> None:  # type: ignore[no-untyped-def]
    everything, models = load("all"), load("all").pretrained.names()
    for name in load("manifold_cases").CASES:
        assert ("--pretrained" in everything.command(name, quick=True)) is (name in models)
        assert (name in everything.shipped()) is (name in models)
    for name in ("peers", "cost"):
        expected = [str(BENCHMARKS / "manifolds.py"), name, "--json"]
        assert everything.command(f"manifold-{name}", quick=True)[1:] == expected
