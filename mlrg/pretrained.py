"""Pretrained teachers: conditional hierarchical flows that come with the package, one folder for each size."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flows import runs
from mlrg.hierarchy import HierarchicalFlow
from mlrg.systems import System, system
from mlrg.teacher import Recipe, Teacher

MODELS = Path(__file__).parent / "models"
LARGEST = 200_000  # bytes of weights


def names() -> tuple[str, ...]:
    """The teachers there are: "<system>-<extent>"."""
    return tuple(sorted(path.parent.name for path in MODELS.glob("*/config.json")))


def load(name: str, extent: int) -> Teacher:
    """The teacher of a system on extent^d sites, in float64 and precisely integrated."""
    folder = f"{name}-{extent}"
    if folder not in names():
        raise ValueError(f"expected a pretrained teacher, one of {', '.join(names())}, got {folder!r}: train one")
    return read(MODELS / folder, system(name))


def save(teacher: Teacher, folder: Path, **record: Any) -> Path:
    """Write a teacher: its recipe and couplings as JSON, its weights as float32.

    Args:
        record: further numbers to keep, e.g. command, train_seconds, ess.
    """
    state = {key: value.to(torch.float32) for key, value in teacher.flow.named_parameters()}
    size = sum(value.numel() * value.element_size() for value in state.values())
    if size > LARGEST:
        raise ValueError(f"expected at most {LARGEST} bytes of weights, got {size}: train a smaller recipe")
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({key: value.detach().clone() for key, value in state.items()}, folder / "weights.pt")
    extents = list(teacher.family.field.lattice.extents)
    config = {**record, "extents": extents, "couplings": teacher.space, "recipe": teacher.recipe}
    runs.atomic_write_json(folder / "config.json", config)
    return folder


def read(folder: Path, which: System) -> Teacher:
    """The teacher that `save` wrote, for a system that knows its family; ValueError if it is not of that system."""
    config = json.loads((folder / "config.json").read_text())
    if tuple(config["couplings"]["names"]) != which.space.names:
        raise ValueError(f"expected a teacher of {which.space.names}, got {config['couplings']['names']} in {folder}")
    known = {f.name for f in fields(Recipe)}
    recipe = Recipe(**{k: _tuple(v) for k, v in config["recipe"].items() if k in known})
    space = type(which.space)(**{k: _tuple(v) for k, v in config["couplings"].items() if k != "type"})
    family = which.family.on(tuple(config["extents"]))
    flow = recipe.build(family, space, torch.float32)
    try:
        weights = torch.load(folder / "weights.pt", weights_only=True)
        flow.load_state_dict({**flow.state_dict(), **_complete(flow, weights)})
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, TypeError) as error:
        raise ValueError(f"expected the weights of {family} in {folder}, got a damaged file: {error}") from error
    return Teacher(family, space, flow, recipe).precise()


def _complete(flow: HierarchicalFlow, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, if they are finite and all there."""
    missing = {name for name, _ in flow.named_parameters()} ^ set(weights)
    if missing or not all(bool(value.isfinite().all()) for value in weights.values()):
        raise RuntimeError(f"other parameters or not finite {sorted(missing)}")
    return weights


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
