"""Pretrained models: flows that come with the package, small enough to read and cheap enough to regenerate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from flows import runs
from flows.commands.command_line import command_line
from flows.layers.integrated import IntegratedFlow
from flows.trained import MODELS, Trained, find
from flows.trained import load as load_trained

LARGEST = 200_000  # bytes of weights
TOLERANCE = 1e-4  # of log q, in nats


def names() -> tuple[str, ...]:
    """The models there are, e.g. for `load` or `latflow sample --pretrained`."""
    return tuple(sorted(path.parent.name for path in MODELS.glob("*/config.json")))


def load(name: str) -> Trained:
    """One of `names()` as a float64 flow with its configuration."""
    if name not in names():
        raise ValueError(f"expected a pretrained model, one of {', '.join(names())}, got {name!r}: choose one of these")
    return load_trained(MODELS / name)


def command(name: str) -> str:
    """The command that regenerates a model."""
    return json.loads((MODELS / name / "config.json").read_text())["command"]


def save_pretrained(run_directory: Path | str, name: str, command: str | None = None, **record: Any) -> Path:
    """Make a model of the package out of a finished run: its configuration, the command that repeats it, weights.

    Args:
        run_directory: where `latflow train` left a checkpoint.
        name: of the model, e.g. "phi4-8".
        command: what regenerates the model, if that is not a single `latflow train`.
        record: further numbers to keep beside the configuration, e.g. train_seconds.
    """
    source, target = load_trained(find(run_directory), TOLERANCE), MODELS / name
    dtype = torch.float32 if source.configuration.dtype == "float32" else torch.float64
    state = {key: tensor.to(dtype).clone() for key, tensor in source.flow.state_dict().items()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if size > LARGEST:
        raise ValueError(f"expected at most {LARGEST} bytes of weights, got {size}: train a smaller flow")
    target.mkdir(parents=True, exist_ok=True)
    torch.save(state, target / "weights.pt")
    command = command or command_line(source.configuration, name)
    if isinstance(source.flow.bijection, IntegratedFlow):  # measured once, so that loading need not search
        record |= {"refined_steps": source.flow.bijection.n_steps, "refined_tolerance": TOLERANCE}
    config = {"command": command, **record, **source.configuration.to_dict(), "start_from": None}
    runs.atomic_write_json(target / "config.json", config)
    return target
