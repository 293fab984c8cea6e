"""Fits that are killed with SIGKILL, one forked process each: `python -m tests.crashing_runs DIRECTORY`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.training import Fit, Record, Settings, fit
from flows.updates.gradient import GradientUpdate
from flows.updates.update import Problem
from tests.tiny_flows import generator, problem

N_STEPS, EVERY = 12, 5


def train(
    directory: Path | None, resume: bool = False, callback: Callable[[Record], Any] | None = None
) -> tuple[Problem, Fit]:
    """The fit that all scenarios share."""
    of, settings = problem(), Settings(directory, checkpoint_every=EVERY, resume=resume)
    update = GradientUpdate(learning_rate=0.05, batch_size=8, warm_up=0.3)
    return of, fit(of, update, N_STEPS, generator=generator(3), settings=settings, callback=callback)


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_step(directory: Path) -> None:
    train(directory, callback=lambda record: die() if record["step"] == 7 else None)


def before_the_rename(directory: Path, step: int = 10) -> None:
    replace = os.replace
    os.replace = lambda a, b: die() if Path(b).name == f"step-{step:08d}" else replace(a, b)  # type: ignore[assignment]
    train(directory)


def before_the_first_rename(directory: Path) -> None:
    before_the_rename(directory, 5)


def in_the_middle_of_a_file(directory: Path) -> None:
    flush = os.fsync

    def half(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}") if sys.platform == "linux" else ""
        if "step-00000010" in name or (not name and (directory / "checkpoints/.step-00000010.tmp").exists()):
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die()
        flush(descriptor)

    os.fsync = half  # type: ignore[assignment]
    train(directory)


SCENARIOS = {  # and the step that a resumed fit starts from
    in_a_step: 5,
    before_the_rename: 5,
    before_the_first_rename: 0,
    in_the_middle_of_a_file: 5,
}


def main(directory: Path) -> None:
    GradientUpdate().init(problem())  # what torch imports late, it imports once
    for scenario in SCENARIOS:
        child = os.fork()  # nothing has been differentiated yet: forking is safe
        if child == 0:
            scenario(directory / scenario.__name__)
            os._exit(1)  # survived
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            raise SystemExit(f"{scenario.__name__} was not killed: {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
