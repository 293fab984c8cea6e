"""fit: the one training loop. It repeats an update, keeps records and checkpoints, and survives being killed."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from flows import checkpoints, parallel, runs
from flows.updates.update import Problem, Update

Record = dict[str, Any]
"""One line of metrics.jsonl: step, loss, ess, n, seconds, and the numbers of the update."""


@dataclass(frozen=True)
class Settings:
    """What a fit keeps, and when it gives up.

    Args:
        directory: the run directory for metrics.jsonl and checkpoints/; None keeps nothing on disk.
        checkpoint_every: steps between checkpoints; there is always one at the end.
        resume: continue from the newest complete checkpoint, or start if there is none.
        patience: non-finite steps in a row after which the fit gives up.
    """

    directory: Path | str | None = None
    checkpoint_every: int = 100
    resume: bool = False
    patience: int = 10

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}: pass a positive number")
        if self.resume and self.directory is None:
            raise ValueError("expected a directory to resume from, got None: pass directory=… or resume=False")


class Fit(NamedTuple):
    """What happened: every record, the update's last state, rejected steps, and the step it resumed from (or 0)."""

    history: list[Record]
    state: dict[str, Any]
    rejected: int
    resumed_from: int


def fit(
    problem: Problem,
    update: Update,
    n_steps: int,
    *,
    generator: torch.Generator,
    settings: Settings = Settings(),
    callback: Callable[[Record], bool | None] | None = None,
) -> Fit:
    """Improve `problem.flow` in place by `n_steps` updates.

    A step that ends in a non-finite loss, parameter or update state is undone, counted and recorded; the next one
    draws new samples. A killed fit resumes bit for bit on the same number of ranks and deterministic kernels.

    Args:
        generator: randomness of the samples; on several ranks each derives its own from it.
        settings: files, checkpoints and patience.
        callback: called with every record; returning True ends the fit after a checkpoint.
    """
    if n_steps < 1:
        raise ValueError(f"expected n_steps >= 1, got {n_steps}: pass a positive number of steps")
    if problem.flow.field != problem.target.field:
        raise ValueError(f"expected a flow on {problem.target.field}, got {problem.flow.field}: use the same lattice")
    loop = _Loop(problem, update, n_steps, _own(generator), settings)
    resumed_from = loop.start()
    bar = tqdm(total=n_steps, initial=loop.step, desc="fit", disable=None if parallel.rank() == 0 else True)
    with bar:
        while loop.step < n_steps:
            record = loop.advance()
            bar.update()
            bar.set_postfix({key: record[key] for key in ("loss", "ess")}, refresh=False)
            stop = any(parallel.gather_objects(bool(callback and callback(record))))
            if stop or loop.step == n_steps or loop.step % settings.checkpoint_every == 0:
                loop.save()
            if stop:
                break
    return Fit(loop.history, loop.state, loop.rejected, resumed_from)


def batch_ess(log_weights: Tensor) -> float:  # (n,) -> scalar
    """⟨w⟩² / ⟨w²⟩ of one batch: a number to watch, biased upward; see `lattices.statistics` for one to quote."""
    total, squares = (torch.logsumexp(power * log_weights.double(), 0) for power in (1, 2))
    return math.exp(2 * total - squares) / len(log_weights)


def _own(generator: torch.Generator) -> torch.Generator:
    """The generator itself, or on several ranks a different one on each, derived from rank 0's."""
    if parallel.world_size() == 1:
        return generator
    draw = torch.randint(2**62, (), generator=generator, device=generator.device)
    return parallel.rank_generator(parallel.from_main(lambda: int(draw)), "fit", generator.device)


@dataclass
class _Loop:
    """The moving parts of a fit: all that a checkpoint has to hold."""

    problem: Problem
    update: Update
    n_steps: int
    generator: torch.Generator
    settings: Settings
    step: int = 0
    rejected: int = 0
    in_a_row: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    history: list[Record] = field(default_factory=list)
    began: float = 0.0

    @property
    def directory(self) -> Path | None:
        return None if self.settings.directory is None else Path(self.settings.directory)

    def start(self) -> int:
        """Begin, or continue where the newest checkpoint stopped; returns the steps already done."""
        parallel.synchronise(self.problem.flow)
        self.state = self.update.init(self.problem)
        found = parallel.from_main(self._find)
        if found is not None:
            self._restore(found)
        if self.directory is not None and parallel.rank() == 0:
            self.history = runs.truncate_metrics(self.directory / "metrics.jsonl", self.step)
        self.began = time.monotonic() - (self.history[-1]["seconds"] if self.history else 0.0)
        return self.step

    def advance(self) -> Record:
        """One update, undone if it leaves anything non-finite."""
        flow = self.problem.flow
        good = _copied(dict(flow.state_dict())), _copied(self.state)
        record, fault = self._attempt()
        faults = [f for f in parallel.gather_objects(fault) if f]
        self.step += 1
        self.in_a_row = self.in_a_row + 1 if faults else 0
        if faults:
            flow.load_state_dict(good[0])
            self.state, self.rejected = good[1], self.rejected + 1
            record = {"loss": None, "ess": None, "n": record["n"], "rejected": faults[0]}
            warnings.warn(f"step {self.step} undone: non-finite {faults[0]}", RuntimeWarning, stacklevel=3)
        record = runs.plain({"step": self.step, **record, "seconds": time.monotonic() - self.began})
        self._record(record)
        if self.in_a_row >= self.settings.patience:
            raise RuntimeError(
                f"expected finite updates, got {self.in_a_row} in a row with a non-finite {faults[0]}, the last at "
                f"step {self.step}: lower the learning rate or clip the gradient; the flow is as it last was finite"
            )
        return record

    def save(self) -> None:
        """Write a checkpoint that holds all ranks; rank 0 writes it."""
        generators = parallel.gather_objects(self.generator.get_state())
        if self.directory is None or parallel.rank() != 0:
            return
        content = {
            "step": self.step,
            "rejected": self.rejected,
            "in_a_row": self.in_a_row,
            "n_steps": self.n_steps,
            "model": self.problem.flow.state_dict(),
            "update": type(self.update).__name__,
            "state": self.state,
            "generators": generators,
            "seed": self.generator.initial_seed(),
        }
        checkpoints.save(self.directory / "checkpoints", self.step, content)

    def _attempt(self) -> tuple[Record, str | None]:
        progress = (self.step + 0.5) / self.n_steps
        try:
            self.state, report = self.update.step(self.problem, self.state, progress, self.generator)
        except torch.linalg.LinAlgError as error:
            return {"n": 0}, f"linear system ({error})"
        losses = parallel.gather_objects(report.loss)
        loss, log_weights = sum(losses) / len(losses), parallel.gather(report.log_weights)
        record = {"loss": loss, "ess": batch_ess(log_weights), "n": len(log_weights), **report.numbers}
        return record, self._fault(loss)

    def _fault(self, loss: float) -> str | None:
        """The name of the first thing that is not finite."""
        if not math.isfinite(loss):
            return "loss"
        named = [*self.problem.flow.named_parameters(), *_tensors(self.state, "state")]
        if _finite([tensor for _, tensor in named]):
            return None
        return next((name for name, tensor in named if not tensor.isfinite().all()), "sum of a parameter")

    def _record(self, record: Record) -> None:
        self.history.append(record)
        if self.directory is not None and parallel.rank() == 0:
            path = self.directory / "metrics.jsonl"
            with runs.clear_disk_errors(path), open(path, "a") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")

    def _find(self) -> checkpoints.Checkpoint | None:
        if self.directory is None:
            return None
        folder = self.directory / "checkpoints"
        if self.settings.resume:
            return checkpoints.latest(folder)
        if any(not path.name.startswith(".") for path in folder.glob("*")):
            raise ValueError(f"expected a new run, got checkpoints in {folder}: pass resume=True or another directory")
        return None

    def _restore(self, found: checkpoints.Checkpoint) -> None:
        content = found.content
        self._require_same(found)
        self.problem.flow.load_state_dict(content["model"])
        self.step, self.rejected, self.in_a_row = (content[key] for key in ("step", "rejected", "in_a_row"))
        self.state = content["state"]
        states, own = content["generators"], self.generator.get_state()
        if len(states) == parallel.world_size() and states[parallel.rank()].shape == own.shape:
            self.generator.set_state(states[parallel.rank()])
        else:
            warnings.warn(
                f"{found.path} was written by {len(states)} ranks, this is {parallel.world_size()}, or another kind of "
                "device: random numbers are derived anew, the fit is not bit for bit the same",
                RuntimeWarning,
                stacklevel=4,
            )
            purpose = f"resumed at {self.step}"
            self.generator.manual_seed(parallel.derive_seed(content["seed"], purpose, parallel.rank()))

    def _require_same(self, found: checkpoints.Checkpoint) -> None:
        """Refuse the checkpoint of another model, update or longer fit."""
        content, update = found.content, type(self.update).__name__
        saved, own = (
            {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in model.items()}
            for model in (content["model"], self.problem.flow.state_dict())
        )
        if saved != own:
            name = min(set(saved.items()) ^ set(own.items()))[0]
            raise ValueError(
                f"expected {name} as {own.get(name)}, got {saved.get(name)} in {found.path}: "
                "resume with the same architecture and dtype"
            )
        if content["update"] != update:
            raise ValueError(f"expected state of {update}, got {content['update']} in {found.path}: use that update")
        if found.step > self.n_steps:
            raise ValueError(f"expected at most {self.n_steps} steps, got {found.step} done: raise n_steps")


def _finite(tensors: list[Tensor]) -> bool:
    """Whether all are finite, seen in their sums, waiting only once for each device."""
    sums: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        sums.setdefault(tensor.device, []).append(tensor.detach().sum())
    return all(bool(torch.stack(some).isfinite().all()) for some in sums.values())


def _copied(state: Any) -> Any:
    """The same nested containers with copies of the tensors."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return type(state)(map(_copied, state)) if isinstance(state, list | tuple) else state


def _tensors(state: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested containers, with the path to each."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        for key, value in items:
            yield from _tensors(value, f"{name}.{key}")
