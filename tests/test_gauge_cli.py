"""Gauge theories on the command line: every command once, files that can be read again, tables with exact values."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import pytest
import torch

from flows import checkpoints
from flows.architectures.gauge_continuous import GaugeContinuous
from flows.bases import White
from flows.cli import main
from flows.commands.command_line import command_line
from flows.configuration import Configuration
from flows.quantities import mean, quantities
from flows.quantities.gauge import charge_probabilities
from flows.sampling.exact_gauge import ExactPlane
from flows.trained import load
from flows.villain import Villain
from lattices.exact import u1_charge_distribution
from lattices.files import read
from lattices.gauge_observables import gauge_observables
from lattices.statistics import jackknife
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge

U1 = ["u1-gauge", "--extents", "3", "3", "--beta", "2"]
SU3 = ["su-n-gauge", "--extents", "2", "2", "--n", "3", "--beta", "2"]
SMALL = ["--architecture.n-times", "2", "--architecture.n-steps", "3", "--architecture.radius", "1"]
QUICK = ["--update.n-samples", "128", "--n-steps", "3"]
HMC = ["--hmc.n-chains", "16", "--hmc.n-steps", "40", "--hmc.warm-up", "20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of U(1), trained by the command line."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", *U1, *SMALL, *QUICK, "--runs", str(folder)]) == 0
    return folder / "u1-gauge-3x3"


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_links_get_the_trivialising_flow_on_the_best_base(run: Path) -> None:
    trained = load(run)
    assert trained.configuration.architecture == GaugeContinuous(radius=1.0, n_times=2, n_steps=3)
    assert trained.flow.bijection.method == "dop853"
    assert isinstance(trained.flow.base, Villain)
    space = GaugeContinuous(radius=1.0, n_times=2).build(U1Gauge((2, 2, 2), 1.0))
    assert isinstance(space.base, White)
    with pytest.raises(ValueError, match="haar"):
        GaugeContinuous(base="gauss")


def test_the_command_of_a_run_repeats_it(run: Path, tmp_path: Path) -> None:
    configuration = load(run).configuration
    assert Configuration.from_dict(json.loads(json.dumps(configuration.to_dict()))) == configuration
    words = shlex.split(command_line(configuration, "again"))
    assert "--architecture" not in words
    assert main([*words[1:], "--runs", str(tmp_path)]) == 0
    first, again = (checkpoints.latest(where / "checkpoints") for where in (run, tmp_path / "again"))
    assert first is not None
    assert again is not None
    torch.testing.assert_close(again.content["model"], first.content["model"], rtol=0, atol=0)


def test_resume_and_start_from_a_smaller_lattice(run: Path) -> None:
    where = ["--runs", str(run.parent), "--name"]
    assert main(["train", *U1, *SMALL, *QUICK, *where, "resumed"]) == 0
    assert main(["train", *U1, *SMALL, *QUICK, *where, "resumed", "--n-steps", "4", "--resume"]) == 0
    assert load(run.parent / "resumed").configuration.n_steps == 4
    larger = ["u1-gauge", "--extents", "4", "4", "--beta", "2", "--architecture.radius", "1.5"]
    assert main(["train", *larger, *QUICK, "--n-steps", "1", "--start-from", str(run), *where, "larger"]) == 0
    found = load(run.parent / "larger").configuration
    assert found.architecture == GaugeContinuous(radius=1.5, n_times=2)
    start, source = found.build().flow.bijection, load(run).flow.bijection
    moved = source.transferred(U1Gauge((4, 4), 2.0).field.lattice, 1.5)  # type: ignore[operator]
    torch.testing.assert_close(start.theta, moved.theta.float())


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_sample_writes_an_ensemble(run: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture) -> None:
    if suffix == "h5":
        pytest.importorskip("h5py")
    assert main(["sample", str(run), "-n", "500", "--out", str(tmp_path / f"samples.{suffix}")]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("log Z", "⟨P⟩", "⟨Q²⟩", "exact", "τ_int(Q²)"))
    ensemble, model = read(tmp_path / f"samples.{suffix}"), load(run)
    assert ensemble.theory == model.action
    expected = -model.action(ensemble.x) - model.flow.log_prob(ensemble.x)
    torch.testing.assert_close(ensemble.measured["log_weights"], expected.detach(), rtol=0, atol=1e-3)
    assert (ensemble.measured["metropolis_indices"] <= torch.arange(500)).all()
    assert {"charge.png", "metropolis.png", "log_weights.png"} <= {p.name for p in (run / "figures").iterdir()}


def test_the_table_of_a_flow_agrees_with_characters(run: Path) -> None:
    assert main(["sample", str(run), "-n", "4000"]) == 0
    rows = json.loads((run / "results.json").read_text())["methods"]["flow, reweighted"]["estimates"]
    exact = quantities(load(run).action).exact()
    assert set(exact) == {"log Z", "⟨P⟩", "⟨Q⟩", "⟨Q²⟩", "⟨|∇S|² - ∇²S⟩/V"}
    for row, value in exact.items():
        assert abs(rows[row]["value"] - value) < 4 * rows[row]["error"], row


def test_free_energy_and_check(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["free-energy", str(run), "-n", "1000", *HMC]) == 0
    found = json.loads((run / "free_energy.json").read_text())
    for name in ("log Z, flow samples", "log Z, target samples", "log Z, both (BAR)"):
        estimate = found["estimates"][name]
        assert abs(estimate["value"] - found["exact"]["log Z"]) < 4 * estimate["error"]
    capsys.readouterr()
    assert main(["check", str(run), "-n", "1000", *HMC]) == 0
    printed = capsys.readouterr().out
    laws = ("GaugeInvariance", "CentreSymmetry", "Jacobian", "inverse", "integration", "normalisation", "∇²S")
    assert all(word in printed for word in laws)


def test_matrices_pass_the_same_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SU3, *SMALL, *QUICK, "--runs", str(tmp_path)]) == 0
    where = str(tmp_path / "su-n-gauge-2x2")
    assert main(["check", where, "-n", "500", "--least-ess", "0.01", *HMC]) == 0
    assert "Jacobian" in capsys.readouterr().out
    assert main(["sample", where, "-n", "200", "--out", str(tmp_path / "x.npz")]) == 0
    assert read(tmp_path / "x.npz").x.dtype == torch.complex128


def test_hmc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--n-chains", "4", "--n-steps", "20", "--warm-up", "10"]
    for words in (U1, SU3):
        assert main(["hmc", *words, *few, "--out", str(tmp_path / words[0])]) == 0
        printed = capsys.readouterr().out
        assert all(word in printed for word in ("⟨P⟩", "⟨|L|⟩", "⟨exp(-ΔH)⟩", "exact"))
        ensemble = read(tmp_path / f"{words[0]}.npz")
        assert ensemble.measured["chain"].tolist() == [n for n in range(4) for _ in range(20)]
        assert len(ensemble) == 80
    assert main(["hmc", *U1, *few, "--out", str(tmp_path / "x.lime")]) == 2
    assert ".npz, .h5, .hdf5" in capsys.readouterr().err


@pytest.mark.parametrize("action", [U1Gauge((3, 3), 2.0), SUNGauge((3, 3), 2, 2.0)], ids=["U1", "SU2"])
def test_forces_balance_and_those_of_another_action_do_not(action: U1Gauge | SUNGauge) -> None:
    x = ExactPlane(action).sample(4000, generator=seeded())
    other = U1Gauge((3, 3), 2.5) if isinstance(action, U1Gauge) else SUNGauge((3, 3), 2, 2.5)
    right, wrong = (quantities(a).measure(x)["schwinger_dyson"] for a in (action, other))
    assert abs(mean(jackknife, right).z_score(0.0)) < 4
    assert abs(mean(jackknife, wrong).z_score(0.0)) > 8


def test_charges_are_counted_with_errors() -> None:
    action = U1Gauge((3, 3), 1.0)
    charge = gauge_observables(action.field, ExactPlane(action).sample(4000, generator=seeded()))["charge"]
    exact, found = u1_charge_distribution(action.extents, action.beta), charge_probabilities(charge, jackknife)
    assert sum(estimate.value for estimate in found.values()) == pytest.approx(1)
    assert all(abs(found[q].z_score(exact[q])) < 4 for q in (-1, 0, 1))
    assert abs(found[0].z_score(exact[1])) > 8


def test_what_never_moves_has_no_error() -> None:
    frozen = mean(jackknife, torch.zeros(3, 5))
    assert (frozen.value, frozen.error) == (0.0, math.inf)
