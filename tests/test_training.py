"""fit: it learns, keeps honest records, undoes broken steps, and resumes bit for bit after being killed."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from flows import checkpoints, runs
from flows.objectives import Loss, ReverseKL
from flows.training import Fit, Record, Settings, batch_ess, fit
from flows.updates.gradient import GradientUpdate
from flows.updates.update import Problem, Report, Update
from lattices.statistics import effective_sample_size
from tests.crashing_runs import N_STEPS, SCENARIOS, train
from tests.tiny_flows import Affine, Quadratic, SinhArcsinh, generator, optimum, problem

QUICK = GradientUpdate(learning_rate=0.05, batch_size=8)


def untimed(history: list[Record]) -> list[Record]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def assert_same(first: tuple[Problem, Fit], second: tuple[Problem, Fit]) -> None:
    """Bit for bit: parameters, optimiser, records."""
    for name, tensor in first[0].flow.state_dict().items():
        assert torch.equal(tensor, second[0].flow.state_dict()[name]), name
    torch.testing.assert_close(first[1].state, second[1].state, rtol=0, atol=0)
    assert untimed(first[1].history) == untimed(second[1].history)


@pytest.fixture(scope="module")
def straight() -> tuple[Problem, Fit]:
    return train(None)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("crashed")
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-m", "tests.crashing_runs", str(directory)], check=True, cwd=root, timeout=120)
    return directory


def test_fit_learns_what_the_flow_can_represent() -> None:
    of = problem()
    result = fit(of, GradientUpdate(learning_rate=0.1, batch_size=32), 200, generator=generator())
    assert result.history[-1]["ess"] > 0.9999
    assert result.history[0]["ess"] < 0.5
    assert result.history[-1]["n"] == 32
    best = optimum().flow.state_dict()
    for name, tensor in of.flow.state_dict().items():
        torch.testing.assert_close(tensor, best[name], atol=2e-3, rtol=0)


def test_batch_ess_is_that_of_the_statistics() -> None:
    log_weights = torch.randn(50, dtype=torch.float64, generator=generator())
    assert batch_ess(log_weights) == pytest.approx(effective_sample_size(log_weights).value)
    assert batch_ess(torch.full((7,), -900.0)) == pytest.approx(1)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_killed_fit_resumes_bit_for_bit(
    scenario: Callable[[Path], None], crashed: Path, straight: tuple[Problem, Fit]
) -> None:
    directory = crashed / scenario.__name__
    resumed = train(directory, resume=True)
    assert resumed[1].resumed_from == SCENARIOS[scenario]
    assert_same(resumed, straight)
    assert untimed(runs.read_metrics(directory / "metrics.jsonl")) == untimed(straight[1].history)
    assert sorted(p.name for p in (directory / "checkpoints").iterdir()) == ["step-00000010", "step-00000012"]


def test_a_finished_fit_resumes_to_itself(tmp_path: Path, straight: tuple[Problem, Fit]) -> None:
    train(tmp_path)
    again = train(tmp_path, resume=True)
    assert again[1].resumed_from == N_STEPS
    assert_same(again, straight)


def test_callback_ends_a_fit_that_can_go_on(tmp_path: Path, straight: tuple[Problem, Fit]) -> None:
    _, first = train(tmp_path, callback=lambda record: record["step"] == 3)
    assert len(first.history) == 3
    resumed = train(tmp_path, resume=True)
    assert resumed[1].resumed_from == 3
    assert_same(resumed, straight)


def test_a_lost_sample_is_noticed(tmp_path: Path, straight: tuple[Problem, Fit]) -> None:
    """Negative control: forgetting the generator alone breaks the equality."""
    train(tmp_path, callback=lambda record: record["step"] == 3)
    found = checkpoints.latest(tmp_path / "checkpoints")
    assert found
    content = {**found.content, "generators": [generator(4).get_state()]}
    checkpoints.save(tmp_path / "checkpoints", found.step, content)
    with pytest.raises(AssertionError):
        assert_same(train(tmp_path, resume=True), straight)


def test_damaged_newest_checkpoint_falls_back(tmp_path: Path, straight: tuple[Problem, Fit]) -> None:
    train(tmp_path)
    state = tmp_path / "checkpoints/step-00000012/state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match="step-00000012: corrupt.*using .*step-00000010"):
        resumed = train(tmp_path, resume=True)
    assert resumed[1].resumed_from == 10
    assert_same(resumed, straight)


@dataclass(frozen=True)
class Poisoned(Update):
    """An update that breaks something at chosen steps."""

    at: tuple[int, ...]
    what: str
    inner: GradientUpdate = QUICK

    def init(self, problem: Problem) -> dict[str, Any]:
        return {"count": 0, "inner": self.inner.init(problem)}

    def step(
        self, problem: Problem, state: dict[str, Any], progress: float, generator: torch.Generator
    ) -> tuple[dict[str, Any], Report]:
        inner, report = self.inner.step(problem, state["inner"], progress, generator)
        if round(progress * 10 + 0.5) in self.at:
            if self.what == "loss":
                report = report._replace(loss=math.nan)
            elif self.what == "solve":
                raise torch.linalg.LinAlgError("singular")
            else:
                place = {"parameter": next(problem.flow.parameters()), "state": inner["state"][0]["exp_avg_sq"]}
                with torch.no_grad():
                    place[self.what].flatten()[0] = math.inf
        return {"count": state["count"] + 1, "inner": inner}, report

    @classmethod
    def examples(cls):  # type: ignore[no-untyped-def]
        yield cls((), "loss")


@pytest.mark.parametrize("what", ["loss", "parameter", "state", "solve"])
def test_a_broken_step_is_undone_and_said(what: str, tmp_path: Path) -> None:
    def remember(record: Record) -> None:
        snapshots.append(torch.cat([p.detach().flatten() for p in of.flow.parameters()]))

    of, snapshots = problem(), []
    for p in of.flow.base.parameters():
        p.requires_grad_(True)
    settings = Settings(tmp_path, patience=3)
    with pytest.warns(RuntimeWarning, match=r"undone: non-finite") as warned:
        result = fit(of, Poisoned((4, 5), what), 10, generator=generator(), settings=settings, callback=remember)
    assert [str(w.message)[:13] for w in warned] == ["step 4 undone", "step 5 undone"]
    assert result.rejected == 2
    assert torch.equal(snapshots[2], snapshots[4])
    assert not torch.equal(snapshots[4], snapshots[5])
    assert result.state["count"] == 8
    assert all(p.isfinite().all() for p in of.flow.parameters())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["loss"] is None and line["rejected"]] == [4, 5]


def test_fit_gives_up_after_too_many_broken_steps() -> None:
    of = problem()
    with (
        pytest.warns(RuntimeWarning, match="undone"),
        pytest.raises(RuntimeError, match=r"expected finite updates, got 3 in a row.*lower the learning rate"),
    ):
        fit(of, Poisoned((2, 3, 4), "parameter"), 10, generator=generator(), settings=Settings(patience=3))
    assert all(p.isfinite().all() for p in of.flow.parameters())


def test_a_real_overflow_is_survived() -> None:
    """The rate is absurd: exp overflows. The flow must end finite and the fit must say what happened."""
    of, update = problem(), replace(QUICK, learning_rate=1e3, optimiser="sgd", schedule="constant", warm_up=0.0)
    with pytest.warns(RuntimeWarning, match="undone"), pytest.raises(RuntimeError, match="expected finite updates"):
        fit(of, update, 200, generator=generator())
    assert all(p.isfinite().all() for p in of.flow.parameters())


@pytest.mark.parametrize("call", ["fsync", "mkdir"])
def test_full_disk_stops_clearly_and_older_checkpoint_survives(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: tuple[Problem, Fit]
) -> None:
    original, disk = getattr(os, call), []

    def full(*arguments: Any) -> Any:
        if disk:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match=r"step-00000010.*No space left.*make room.*resume") as caught:
            train(tmp_path, callback=lambda record: disk.append("full") if record["step"] == 6 else None)
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
    resumed = train(tmp_path, resume=True)
    assert resumed[1].resumed_from == 5
    assert_same(resumed, straight)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_full_disk_under_the_metrics(tmp_path: Path) -> None:
    def fill(record: Record) -> None:
        (tmp_path / "metrics.jsonl").unlink()
        (tmp_path / "metrics.jsonl").symlink_to("/dev/full")

    with pytest.raises(OSError, match=r"metrics\.jsonl.*No space left.*make room"):
        train(tmp_path, callback=fill)


def test_resume_refuses_another_run(tmp_path: Path) -> None:
    train(tmp_path)
    here, on = Settings(tmp_path), Settings(tmp_path, resume=True)

    def attempt(match: str, of: Problem, settings: Settings = on, update: Update = QUICK, n: int = N_STEPS) -> None:
        before = {name: tensor.clone() for name, tensor in of.flow.state_dict().items()}
        with pytest.raises(ValueError, match=match):
            fit(of, update, n, generator=generator(), settings=settings)
        assert all(torch.equal(tensor, before[name]) for name, tensor in of.flow.state_dict().items())

    attempt("expected a new run, got checkpoints", problem(), here)
    attempt("same architecture", problem(Affine(), SinhArcsinh()))
    single = Problem(problem().flow.float(), Quadratic())
    attempt("float32", single)
    attempt("expected state of Poisoned", problem(), update=Poisoned((), "loss"))
    attempt("raise n_steps", problem(), n=4)


def test_mistakes_are_explained(tmp_path: Path) -> None:
    for n_steps in (0, -3):
        with pytest.raises(ValueError, match=f"expected n_steps >= 1, got {n_steps}"):
            fit(problem(), QUICK, n_steps, generator=generator())
    for wrong in ({"checkpoint_every": 0}, {"patience": -1}):
        with pytest.raises(ValueError, match="pass a positive number"):
            Settings(tmp_path, **wrong)
    with pytest.raises(ValueError, match="expected a directory to resume from"):
        Settings(resume=True)


def test_config_and_environment_are_written(tmp_path: Path) -> None:
    objective = ReverseKL(path_gradient=False)
    runs.write_config(tmp_path, {"update": GradientUpdate(objective), "extents": (4, 4), "dtype": torch.float64})
    runs.write_environment(tmp_path, seed=7, device="cpu")
    config, environment = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("config", "environment"))
    assert config["update"]["type"] == "GradientUpdate"
    assert config["update"]["objective"] == {"type": "ReverseKL", "path_gradient": False}
    assert config["extents"] == [4, 4]
    assert environment["seed"] == 7
    assert environment["versions"]["torch"] == torch.__version__
    assert runs.plain({"x": math.nan, "y": torch.tensor([1.0, math.inf]), "p": Path("a")}) == {
        "x": None,
        "y": [1.0, None],
        "p": "a",
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "environment.json"]


def test_loss_with_extra_numbers_reaches_the_records() -> None:
    def objective(of: Problem, n: int, generator: torch.Generator) -> Loss:
        return ReverseKL()(of, n, generator)

    record = fit(problem(), replace(QUICK, objective=objective), 1, generator=generator()).history[0]
    assert {"step", "loss", "ess", "n", "seconds", "gradient_norm", "learning_rate"} == set(record)
