"""Gauge benchmarks train, measure and compare; their charges, frozen chains and free energies are what they say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from flows.architectures.gauge_continuous import GaugeContinuous
from flows.sampling.reweighting import WeightedSamples
from flows.updates.natural import NaturalGradient
from lattices.exact import gauge_torus_log_z, u1_charge_distribution
from lattices.statistics import Estimate
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def tiny(load):  # type: ignore[no-untyped-def]
    """A case of two stages that trains in a second."""
    recipe = load("gauge_cases").Recipe(
        GaugeContinuous(n_powers=1, radius=1.0, n_times=1, n_steps=2, base="heat-kernel"),
        NaturalGradient(n_samples=64, chunk=64, trust=1.0), 2,
    )  # fmt: skip
    stages = (recipe.on(U1Gauge((2, 2), 1.0)), recipe.on(U1Gauge((3, 3), 1.0)))
    return load("cases").Case(stages, 0.5, 400)


def test_a_case_is_trained_carried_over_and_compared(  # type: ignore[no-untyped-def]
    load, tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gauge = load("gauge")
    monkeypatch.setitem(load("gauge_cases").CASES, "tiny", tiny)
    monkeypatch.setattr(load("gauge_peers"), "LONGEST", 0.01)
    monkeypatch.setattr(load("gauge_peers"), "n_chains", lambda action: 16)
    monkeypatch.setattr(sys, "argv", ["gauge.py", "tiny", "--json", "--runs", str(tmp_path)])
    gauge.main()
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert result["ess"] > 0.8
    for key, exact in (("log_z", "reference"), ("plaquette", "plaquette_exact"), ("q2", "q2_exact")):
        assert abs(result[key] - result[exact]) < 4 * result[f"{key}_error"], key
    assert result["charges_chi2"] < 30
    assert [row["method"] for row in result["peers"]] == ["continuous flow", "HMC", "heat bath", "exact sampler"]
    assert all(row["plaquette_per_second"] > 0 and row["q2_per_second"] > 0 for row in result["peers"])
    lines = [figure.markdown() for figure in load("figures").figures(result)]
    assert "≥ 0.5 ✓" in lines[0]
    assert len(lines) == 7 + len(result["peers"])


def test_every_case_can_be_built(load) -> None:  # type: ignore[no-untyped-def]
    for name, case in load("gauge_cases").CASES.items():
        fields = {stage.theory.field.target for stage in case.stages}
        assert len(fields) == 1, name
        assert case.n >= 10_000 or case.bar is None, name
        if len(case.stages) == 1 and case.action.field.lattice.volume <= 64:
            flow = case.stages[0].build().flow
            assert flow.field == case.action.field, name


def test_charges_are_judged(load) -> None:  # type: ignore[no-untyped-def]
    """Weighted samples of the exact distribution pass; those of another coupling do not."""
    charges, exact = load("gauge").charges, u1_charge_distribution((8, 8), 2.0)
    generator = torch.Generator().manual_seed(0)
    for beta, passes in ((2.0, True), (2.4, False)):
        drawn = u1_charge_distribution((8, 8), beta)
        index = torch.multinomial(torch.tensor([*drawn.values()]), 20_000, replacement=True, generator=generator)
        charge = torch.tensor([*drawn])[index].double()
        weights = torch.randn(20_000, generator=generator, dtype=torch.float64) / 2  # of nothing that matters
        found = charges(WeightedSamples(weights, {"charge": charge}), exact)
        n = found["charges_dof"]
        assert n == len(found["charges"]) - 1 >= 6
        assert (found["charges_chi2"] < n + 4 * (2 * n) ** 0.5) is passes
        assert sum(probability for _, probability, *_ in found["charges"]) == pytest.approx(1, abs=0.01)


def test_missing_charges_are_found_and_few_samples_say_nothing(load) -> None:  # type: ignore[no-untyped-def]
    charges, exact = load("gauge").charges, u1_charge_distribution((8, 8), 2.0)
    charge = torch.tensor([0.0, 1.0, -1.0]).repeat(1000)  # neither ±2 nor ±3
    found = charges(WeightedSamples(torch.zeros(3000, dtype=torch.float64), {"charge": charge}), exact)
    assert 1000 < found["charges_chi2"] < 10_000
    few = WeightedSamples(torch.zeros(9, dtype=torch.float64), {"charge": charge[:9]})
    assert charges(few, exact) == {"charges": [], "charges_chi2": 0.0, "charges_dof": 0}


def test_frozen_chains_are_worth_nothing(load) -> None:  # type: ignore[no-untyped-def]
    peers = load("gauge_peers")
    frozen = torch.tensor([0.0, 1.0, -2.0]).expand(50, 3).T
    assert peers.effective(frozen**2, peers.worth(frozen)) == (0.0, "∞ (frozen)")
    late = frozen.clone()
    late[0, 25:] = 1.0
    assert peers.effective(late**2).n > 3  # memory of where they began
    assert peers.effective(late**2, peers.worth(late)).n < 2
    mobile = torch.randint(-2, 3, (8, 500), generator=torch.Generator().manual_seed(0)).double()
    assert peers.worth(mobile) == pytest.approx(4000, rel=0.1)
    assert peers.effective(mobile**2, peers.worth(mobile)).n == pytest.approx(4000, rel=0.3)


@pytest.mark.parametrize("action", [U1Gauge((4, 4), 1.5), SUNGauge((2, 2), 2, 2.0)])
def test_log_z_by_heat_bath(load, action, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(load("gauge_peers"), "n_chains", lambda action: 32)
    found: Estimate = load("gauge_peers").log_z_by_heat_bath(action, seconds=0.01, n_nodes=4)
    n = action.n if isinstance(action, SUNGauge) else 1
    assert 0 < found.error < 0.3
    assert abs(found.z_score(gauge_torus_log_z(action.extents, n, action.beta))) < 4


def test_cost_is_measured(load, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    cost = load("gauge_cost")
    monkeypatch.setattr(cost, "FLOW", GaugeContinuous(n_powers=1, radius=1.0, n_times=1, n_steps=1, base="haar"))
    rows = cost.measure(sizes=(2, 3), colours=(1, 2), n=1, n_numbers=64, report=lambda _: None)
    assert len(rows) == 2 * 2 * 4
    assert all(row["seconds"] > 0 and row["peak_bytes"] > 0 for row in rows)
    text = cost.table(rows)
    assert text.count("velocity") == 2
    result = {"case": "cost", "rows": rows, "exponents": {"N": cost.exponents_of_n(rows)}}
    assert len(list(load("figures").figures(result))) == len(rows)


def test_exponents_of_n_are_slopes(load) -> None:  # type: ignore[no-untyped-def]
    rows = [{"quantity": "a", "size": 8, "colours": n, "seconds": 2.0 * n**2.5} for n in (1, 2, 3, 4)]
    assert load("gauge_cost").exponents_of_n(rows) == {"a, L = 8": pytest.approx(2.5, abs=1e-5)}


def test_what_is_not_shipped_runs_only_by_name(load) -> None:  # type: ignore[no-untyped-def]
    everything, models = load("all"), load("all").pretrained.names()
    assert "--pretrained" in everything.command("phi4-8", quick=True)
    for name in load("gauge_cases").CASES:
        assert ("--pretrained" in everything.command(name, quick=True)) is (name in models)
        assert (name in everything.shipped()) is (name in models)
    assert everything.command("cost", quick=True)[1:] == [str(BENCHMARKS / "gauge.py"), "cost", "--json"]
