"""`latflow train THEORY`: build a flow, fit it, leave a run directory behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from flows import parallel, plots, runs
from flows.architectures.architecture import Architecture
from flows.commands.command_line import default_name, default_recipe
from flows.commands.parsing import FLAT, parse_theory, say
from flows.configuration import Configuration, recipes
from flows.trained import read_config
from flows.training import Settings, fit
from flows.updates.update import Update
from lattices.action import Action
from lattices.theories import theories


@dataclass(frozen=True)
class Training:
    """How long, from what, and where to.

    Args:
        n_steps: number of updates.
        seed: of the initial parameters and of all samples.
        dtype: precision of the training; results are quoted in float64 in any case.
        start_from: a run directory or pretrained model to carry parameters over from, e.g. of a smaller lattice.
        name: of the run; by default theory and extents or manifold, e.g. phi4-8x8, sphere-mixture-s2.
        runs: the directory that holds runs.
        resume: continue the run of that name where it was stopped.
        checkpoint_every: updates between checkpoints.
        device: cpu, cuda, …
    """

    n_steps: int = 20
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    start_from: str | None = None
    name: str | None = None
    runs: Path = Path("runs")
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    checkpoint_every: int = 5
    device: str = "cpu"


def main(arguments: Sequence[str]) -> None:
    """Train a flow for a theory; the architecture and the update are chosen by name, and bring their own options."""
    words, chosen = list(arguments), {}
    for part, noun in (("architecture", Architecture), ("update", Update)):
        chosen[part] = choice(words, part, recipes(noun), default_recipe(part, _theory(words)))
    parts = {name: (Annotated[recipe, tyro.conf.arg(name=name)], recipe()) for name, recipe in chosen.items()}
    options = parse_theory(
        words, "train", {"training": (Annotated[Training, FLAT], Training()), **parts}, _description(_theory(words))
    )
    train(_configuration(options), options.training)


def train(configuration: Configuration, training: Training) -> Path:
    """Fit what the configuration describes, and return the run directory."""
    directory = training.runs / (training.name or default_name(configuration.theory))
    problem = configuration.build()
    problem.flow.to(training.device)
    parallel.from_main(lambda: open_run(directory, configuration.resolved(), training.resume, training.device))
    n_parameters = sum(p.numel() for p in problem.flow.parameters() if p.requires_grad)
    say(f"training {n_parameters} parameters for {configuration.theory}")
    generator = torch.Generator(training.device).manual_seed(configuration.seed)
    settings = Settings(directory, training.checkpoint_every, training.resume)
    found = fit(problem, configuration.update, configuration.n_steps, generator=generator, settings=settings)
    if parallel.rank() == 0 and found.history:
        plots.training_curve(found.history, directory / "figures" / "training.png")
        last = found.history[-1]
        say(f"{last['step']} updates, {last['seconds']:.0f} s: loss {last['loss']:.4f}, batch ESS {last['ess']:.4f}")
    say(f"wrote {directory}; next: latflow sample {directory} -n 100000")
    return directory


def _configuration(options: Any) -> Configuration:
    shared = {name: getattr(options.training, name) for name in ("n_steps", "seed", "dtype", "start_from")}
    return Configuration(options.theory, options.architecture, options.update, **shared)


def open_run(directory: Path, configuration: Configuration, resume: bool, device: str) -> None:
    """Write config.json and environment.json; refuse to overwrite a run, or to resume another one."""
    if (directory / "config.json").exists():
        if not resume:
            raise ValueError(f"expected a new run, got {directory}, which exists: pass --resume, or another --name")
        before, now = _flat(read_config(directory)), _flat(runs.plain(configuration.to_dict()))
        changed = [key for key in now if key != "n_steps" and before.get(key) != now[key]]
        if changed:
            key = changed[0]
            raise ValueError(
                f"expected {key} = {before.get(key)} as in {directory}, got {now[key]}: resume with the same"
            )
    runs.write_config(directory, configuration.to_dict())
    runs.write_environment(directory, configuration.seed, device)


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"update": {"trust": 0.5}} as {"update.trust": 0.5}."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _theory(words: Sequence[str]) -> type[Action] | None:
    """The theory named first."""
    return theories().get(words[0] if words else "")


def choice(words: list[str], part: str, known: dict[str, type], name: str) -> type:
    """Take `--part NAME` out of the words, or the default."""
    flag = f"--{part}"
    for i, word in enumerate(words):
        if word == flag or word.startswith(f"{flag}="):
            name = word.partition("=")[2] or (words[i + 1] if i + 1 < len(words) else "")
            del words[i : i + 1 + ("=" not in word)]
            break
    if name not in known:
        raise ValueError(f"expected {flag} to be one of {', '.join(known)}, got {name!r}: choose one of these")
    return known[name]


def _description(theory: type[Action] | None) -> str:
    listed = "\n".join(
        f"--{part} NAME: {', '.join(recipes(noun))} (default: {default_recipe(part, theory)})"
        for part, noun in (("architecture", Architecture), ("update", Update))
    )
    return f"Train a flow for a theory.\n\n{listed}"
