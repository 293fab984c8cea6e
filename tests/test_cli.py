"""The command line, called in process: every command once, and every kind of mistake."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from flows import checkpoints
from flows.cli import main
from flows.commands.command_line import command_line
from flows.configuration import Configuration
from flows.trained import load
from lattices.theories import theories

PHI4 = ["phi4", "--extents", "2", "2", "--mass-squared", "-1", "--quartic", "1"]
SMALL = ["--architecture.n-times", "2", "--update.n-samples", "256", "--n-steps", "5"]
HMC = ["--hmc.n-chains", "16", "--hmc.n-steps", "60", "--hmc.warm-up", "30"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, trained by the command line."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", *PHI4, *SMALL, "--runs", str(folder)]) == 0
    return folder / "phi4-2x2"


def test_train_leaves_a_run(run: Path) -> None:
    for name in ("config.json", "environment.json", "metrics.jsonl", "checkpoints", "figures/training.png"):
        assert (run / name).exists()
    assert load(run).configuration.n_steps == 5


def test_the_command_of_a_run_repeats_it(run: Path, tmp_path: Path) -> None:
    words = shlex.split(command_line(load(run).configuration, "again"))
    assert words[0] == "latflow"
    assert main([*words[1:], "--runs", str(tmp_path)]) == 0
    first, again = (checkpoints.latest(where / "checkpoints") for where in (run, tmp_path / "again"))
    assert first is not None
    assert again is not None
    torch.testing.assert_close(again.content["model"], first.content["model"], rtol=0, atol=0)


def test_sample_writes_exactly_corrected_samples(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run), "-n", "500", "--out", str(tmp_path / "samples.npz")]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("log Z", "ESS", "acceptance", "τ_int", "exact"))
    with np.load(tmp_path / "samples.npz") as found:
        x, log_weights, indices = (found[name] for name in ("x", "log_weights", "metropolis_indices"))
    assert x.shape == (500, 2, 2)
    model, fields = load(run), torch.as_tensor(x)
    expected = -model.action(fields) - model.flow.log_prob(fields)
    torch.testing.assert_close(torch.as_tensor(log_weights), expected.detach(), rtol=0, atol=1e-3)
    assert (indices <= np.arange(500)).all()
    assert json.loads((run / "results.json").read_text())["ess"]["n"] == 500
    assert (run / "figures" / "log_weights.png").stat().st_size > 1000


def test_hmc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--n-chains", "8", "--n-steps", "60", "--warm-up", "20"]
    assert main(["hmc", *PHI4, *few, "--out", str(tmp_path / "chains")]) == 0
    assert "⟨exp(-ΔH)⟩" in capsys.readouterr().out
    with np.load(tmp_path / "chains.npz") as found:
        assert found["x"].shape == (8, 60, 2, 2)


def test_free_energy_agrees_with_the_exact_one(run: Path) -> None:
    assert main(["free-energy", str(run), "-n", "2000", *HMC]) == 0
    found = json.loads((run / "free_energy.json").read_text())
    for name in ("log Z, flow samples", "log Z, target samples", "log Z, both (BAR)"):
        estimate = found["estimates"][name]
        assert abs(estimate["value"] - found["exact"]["log Z"]) < 4 * estimate["error"]


def test_check_passes_a_good_flow_and_fails_a_bad_one(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(run), "-n", "2000", *HMC]) == 0
    printed = capsys.readouterr().out
    assert "all checks passed" in printed
    assert all(word in printed for word in ("SignFlip", "Jacobian", "inverse", "integration", "normalisation", "ESS"))
    assert main(["check", str(run), "-n", "2000", "--least-ess", "1.1", *HMC]) == 1
    assert "FAIL  ESS" in capsys.readouterr().out


def test_resume_continues_and_refuses_another_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    where = ["--runs", str(tmp_path), "--name", "other"]
    assert main(["train", *PHI4, *SMALL, *where]) == 0
    assert main(["train", *PHI4, *SMALL, *where]) == 2
    assert "pass --resume" in capsys.readouterr().err
    assert main(["train", *PHI4, *SMALL, *where, "--n-steps", "7", "--resume"]) == 0
    assert load(tmp_path / "other").configuration.n_steps == 7
    assert main(["train", *PHI4, *SMALL, *where, "--seed", "9", "--resume"]) == 2
    assert "expected seed = 0" in capsys.readouterr().err


def test_other_architectures_and_updates_are_chosen_by_name(tmp_path: Path) -> None:
    coupling = ["--architecture", "coupling", "--architecture.n-layers", "2", "--architecture.hidden", "2"]
    gradient = ["--update=gradient", "--update.batch-size", "32", "--n-steps", "2"]
    assert main(["train", *PHI4, *coupling, *gradient, "--runs", str(tmp_path)]) == 0
    configuration: Configuration = load(tmp_path / "phi4-2x2").configuration
    assert type(configuration.architecture).__name__ == "CouplingFlow"
    assert type(configuration.update).__name__ == "GradientUpdate"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "phi5"], "one of .*phi4.*got 'phi5'"),
        (["train", *PHI4[:-1], "-1"], "bounded from below"),
        (["train", "phi4", "--extents", "0", "2", *PHI4[4:]], "positive int"),
        (["train", *PHI4, "--n-steps", "-3"], "n_steps >= 1"),
        (["train", *PHI4, "--architecture", "transformer"], "continuous.*got 'transformer'"),
        (["train", *PHI4, "--start-from", "nowhere"], "run directory.*got 'nowhere'"),
        (["sample", "nowhere"], "run directory.*got 'nowhere'"),
        (["sample"], "run directory or --pretrained"),
        (["hmc", "ising", "--extents", "4", "4", "--coupling", "0.4"], "expected"),
        (["hmc", *PHI4, "--n-steps", "1"], "n_steps >= 2"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"latflow {words[0]}: expected")
    assert re.search(message, line), line


def test_too_few_samples_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("sample", "free-energy", "check"):
        assert main([command, str(run), "-n", "1"]) == 2
        assert "-n >= 2" in capsys.readouterr().err


def test_traceback_on_demand() -> None:
    with pytest.raises(ValueError, match="phi5"):
        main(["--traceback", "train", "phi5"])


def test_unreadable_words_exit_with_code_2() -> None:
    for words in (["dance"], ["train", *PHI4, "--colour", "red"], ["train", *PHI4[:-1], "x"]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2


def test_help_lists_commands_theories_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("train", "sample", "hmc", "free-energy", "check"))
    for words, expected in (
        (["train", "--help"], list(theories())),
        (["train", "phi4", "-h"], ["--quartic", "--resume"]),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
        printed = capsys.readouterr().out
        assert all(word in printed for word in expected)


def test_top_level_help_needs_no_torch() -> None:
    code = "import sys; from flows.cli import main; main([]); print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"
