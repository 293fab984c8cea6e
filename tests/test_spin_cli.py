"""Spins and densities from the command line: trained, sampled, checked, in agreement with what is exact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from numpy import load as load_arrays
from torch import Tensor

from flows.bijection import Chain
from flows.cli import main
from flows.commands.sample import Source
from flows.configuration import Configuration
from flows.distribution import Transformed
from flows.trained import load
from lattices.lattice import Lattice
from lattices.theories.on import ON
from lattices.theories.sphere_mixture import SphereMixture

HMC = ["--hmc.n-chains", "16", "--hmc.n-steps", "60", "--hmc.warm-up", "30"]
CASES = {
    "xy-2x3": ["xy", "--extents", "2", "3", "--beta", "0.8", "--update.n-samples", "256", "--n-steps", "4"],
    "on-4": ["on", "--extents", "4", "--n", "3", "--beta", "1.2", "--update.n-samples", "256", "--n-steps", "3"],
    "sphere-mixture-s2": [
        *("sphere-mixture", "--concentration", "2", "--architecture.degree", "3", "--architecture.n-times", "2"),
        *("--update.n-samples", "256", "--n-steps", "6"),
    ],
    "torus-mixture-t2": [
        *("torus-mixture", "--architecture.degree", "2", "--architecture.n-times", "2"),
        *("--update.n-samples", "256", "--n-steps", "5"),
    ],
    "torus-correlated-t2": ["torus-correlated", "--update.n-samples", "256", "--n-steps", "4"],
}
FIGURES = {"xy-2x3": {"configuration", "energy", "correlator"}, "sphere-mixture-s2": {"density", "model"}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of every kind, under its default name."""
    folder = tmp_path_factory.mktemp("runs")
    for words in CASES.values():
        assert main(["train", *words, "--runs", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_sampled_with_what_is_exact(runs: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["sample", str(runs / name), "-n", "1000"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("log Z", "ESS", "acceptance", "exact"))
    found = json.loads((runs / name / "results.json").read_text())
    assert found["ess"]["value"] > 0.3
    assert {path.stem for path in (runs / name / "figures").glob("*.png")} >= FIGURES.get(name, set())


@pytest.mark.parametrize("name", CASES)
def test_free_energies_agree_with_the_exact_one(runs: Path, name: str) -> None:
    assert main(["free-energy", str(runs / name), "-n", "1000", *HMC]) == 0
    found = json.loads((runs / name / "free_energy.json").read_text())
    estimates, exact = found["estimates"], found["exact"]["log Z"]
    flow = estimates["log Z, flow samples"]
    assert abs(flow["value"] - exact) < 4 * flow["error"]
    assert estimates["lower bound (ELBO)"]["value"] < exact + 4 * estimates["lower bound (ELBO)"]["error"]
    assert abs(flow["value"] + 0.5 - exact) > 4 * flow["error"]  # half a nat would be noticed


@pytest.mark.parametrize("name", ["xy-2x3", "on-4", "sphere-mixture-s2", "torus-correlated-t2"])
def test_check_passes(runs: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", str(runs / name), "-n", "1000", *HMC]) == 0
    printed = capsys.readouterr().out
    assert "all checks passed" in printed
    assert "Jacobian: |log det - autograd|" in printed


def test_larger_lattices_start_from_smaller_ones(runs: Path) -> None:
    small = load(runs / "on-4").flow
    flow = Configuration(ON((8,), 3, 1.2), start_from=str(runs / "on-4"), dtype="float64").build().flow
    assert torch.equal(flow.base.theta, small.base.transferred(Lattice((8,))).theta)
    assert torch.equal(flow.bijection.theta, small.bijection.transferred(Lattice((8,)), radius=2.0).theta)
    assert flow.base.theta.abs().max() > 0
    with pytest.raises(ValueError, match="expected a SpinContinuous to start from, got a Harmonic"):
        Configuration(SphereMixture(), start_from=str(runs / "on-4")).build()


class Wrong(Chain):
    """A chain whose log-det is off by a hundredth of a coordinate."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = super().forward(z, context)
        return x, log_det + 0.01 * z.flatten(1)[:, 0]


def test_check_notices_a_wrong_flow(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    model = load(runs / "sphere-mixture-s2")
    wrong = model._replace(flow=Transformed(model.flow.base, Wrong(model.flow.bijection)))
    monkeypatch.setattr(Source, "load", lambda _: wrong)
    assert main(["check", str(runs / "sphere-mixture-s2"), "-n", "1000", *HMC]) == 1
    assert "FAIL  Jacobian" in capsys.readouterr().out


def test_hmc_of_spins(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    few = ["--n-chains", "8", "--n-steps", "40", "--warm-up", "20"]
    assert main(["hmc", "on", "--extents", "3", "--n", "3", "--beta", "1", *few, "--out", str(tmp_path / "x.npz")]) == 0
    assert "⟨E⟩" in capsys.readouterr().out
    with load_arrays(tmp_path / "x.npz") as found:
        assert found["x"].shape == (8, 40, 3, 3)
    assert main(["hmc", "sphere-mixture", *few]) == 0
    assert "⟨x₁⟩" in capsys.readouterr().out


def test_discrete_spins_are_told_where_to_go(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "clock", "--extents", "4", "4", "--q", "6", "--beta", "1"]) == 2
    assert "train xy with a crystal field" in capsys.readouterr().err
    assert main(["train", "phi4", "--extents", "2", "2", "--mass-squared", "1", "--quartic", "1",
                 "--update", "likelihood", "--runs", "/nonexistent"]) == 2  # fmt: skip
