"""`mlrg run | analyse | plot`, called in process on the smallest lattices, and every kind of mistake."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlrg import systems
from mlrg.cli import main
from mlrg.couplings import CouplingSpace
from mlrg.teacher import Recipe

TINY = Recipe(frequencies=(1.0,), modulations=(1.0,), smoothing=(), radius=1.0, tails=(), n_times=1, n_steps=2)
SMALL = ["--extents", "2", "--common", "1", "--n-samples", "3000", "--n-replicates", "20", "--hidden", "4"]
RUN = ["run", "phi4", *SMALL, "--source", "chains", "--train", "--train-steps", "3"]
WIDE = CouplingSpace(("beta",), (0.35,), (0.9,))
LESSONS = CouplingSpace(("beta",), (0.55,), (0.63,))


@pytest.fixture(scope="module", autouse=True)
def _tiny_teachers() -> object:
    """φ⁴ with flows of a few parameters, and the wide range that the smallest lattices need."""
    with pytest.MonkeyPatch.context() as patch:
        original = systems._phi4
        patch.setattr(
            systems, "_phi4", lambda: dataclasses.replace(original(), recipe=TINY, space=WIDE, lessons=LESSONS)
        )
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished course of three lessons."""
    folder = tmp_path_factory.mktemp("runs") / "phi4"
    assert main([*RUN, "--n-lessons", "3", "--directory", str(folder)]) == 0
    return folder


def test_run_leaves_lessons_results_and_figures(run: Path) -> None:
    for name in ("config.json", "environment.json", "results.json", "lessons/2-1-2.pt", "figures/map-2-1.png"):
        assert (run / name).is_file(), name
    (pair,) = json.loads((run / "results.json").read_text())["pairs"]
    assert (pair["teacher"], pair["student"], pair["common"], pair["n_lessons"]) == (4, 2, 1, 3)


def test_a_killed_run_ends_with_the_same_numbers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "results.json").read_bytes()
    (run / "lessons" / "2-1-1.pt").unlink()
    damaged = run / "lessons" / "2-1-2.pt"
    damaged.write_bytes(damaged.read_bytes()[:100])
    (run / "results.json").unlink()
    assert main([*RUN, "--n-lessons", "3", "--directory", str(run)]) == 0
    assert capsys.readouterr().out.count("↦") == 2  # the two that were missing
    assert (run / "results.json").read_bytes() == before


def test_analyse_prints_tables_and_repeats_the_numbers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "results.json").read_bytes()
    assert main(["analyse", str(run)]) == 0
    printed = capsys.readouterr().out
    assert all(
        word in printed for word in ("4 → 2", "blockings", "K_c", "Δσ", "residual KL", "ESS", "reference", "pull")
    )
    assert (run / "results.json").read_bytes() == before


def test_plot_draws_elsewhere_too(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run), "--out", str(tmp_path / "figures")]) == 0
    drawn = [Path(line.removeprefix("wrote ")) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in drawn} >= {"map-2-1.png", "monotone-2-1.png"}
    assert all(path.stat().st_size > 5000 for path in drawn)


def test_another_course_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--n-lessons", "3", "--seed", "7", "--directory", str(run)]) == 2
    assert "seed" in capsys.readouterr().err


def test_cluster_is_solved_exactly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cluster"
    assert main(["run", "cluster", "--group", "S2", "--representation", "A1", "--directory", str(folder)]) == 0
    found = json.loads((folder / "results.json").read_text())["results"]
    assert found["critical_coupling_reference"] == pytest.approx(0.764285, abs=1e-6)
    assert main(["analyse", str(folder)]) == 0
    assert main(["plot", str(folder)]) == 0
    assert "J*/2" in capsys.readouterr().out
    assert (folder / "figures" / "map.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "isng"], "a system, one of ising.*got 'isng'"),
        (["run", "phi4", "--extents", "6"], "halves to 1"),
        (["run", "phi4", "--common", "16"], "halves to 16"),
        (["run", "phi4", "--n-lessons", "0"], "n_lessons >= 1"),
        (["run", "phi4", "--source", "dice"], "source"),
        (["run", "phi4", "--moderator", "oracle"], "moderator"),
        (["run", "phi4", "--train", "--pretrained"], "--pretrained or --train"),
        (["run", "phi4", "--train-steps", "0"], "--train-steps >= 1"),
        (["run", "phi4", *SMALL, "--pretrained"], "pretrained teacher"),
        (["run", "cluster", "--group", "A5"], "a group of S2"),
        (["run", "cluster", "--representation", "F1"], "a sum of A1"),
        (["analyse", "nowhere"], "a run directory.*got 'nowhere'"),
        (["plot", "nowhere"], "a run directory.*got 'nowhere'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"mlrg {words[0]}: expected"), line
    assert re.search(message, line), line


def test_a_run_without_lessons_or_with_a_broken_config_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    for text, message in (
        ((run / "config.json").read_text(), "expected lessons"),
        ("{", "expected JSON"),
        ('{"type": "Course", "colour": 3}', "config.json of a course"),
    ):
        config.write_text(text)
        assert main(["analyse", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err


def test_unreadable_words_exit_with_code_2() -> None:
    for words in (["dance"], ["run", "phi4", "--colour", "red"], ["run", "phi4", "--n-lessons", "x"]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2


def test_traceback_on_demand() -> None:
    with pytest.raises(ValueError, match="isng"):
        main(["--traceback", "run", "isng"])


def test_help_lists_commands_systems_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("run", "analyse", "plot"))
    for words, expected in (
        (["run", "--help"], [*systems.systems(), "cluster"]),
        (["run", "ising", "-h"], ["--extents", "--n-lessons", "--train", "--directory"]),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
        printed = capsys.readouterr().out
        assert all(word in printed for word in expected)


def test_top_level_help_needs_no_torch() -> None:
    code = "import sys; from mlrg.cli import main; main([]); print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"
