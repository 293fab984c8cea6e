"""Trained flows on disk: a run directory or a model folder becomes a float64 flow whose integration error is known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flows import checkpoints
from flows.configuration import Configuration
from flows.distribution import Transformed
from flows.layers.integrated import IntegratedFlow
from lattices.action import Action

MODELS = Path(__file__).parent / "models"
"""Where the models that come with the package lie: <name>/config.json and <name>/weights.pt."""

N_STEPS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""What `refined` tries, of a method of order 8."""


class Trained(NamedTuple):
    """A flow in float64, ready to be quoted, and the configuration it was trained with."""

    configuration: Configuration
    flow: Transformed
    directory: Path

    @property
    def action(self) -> Action:
        """The target."""
        return self.configuration.theory


def load(where: Path | str, tolerance: float = 1e-4) -> Trained:
    """The trained flow of a run directory or of a pretrained model, in float64.

    Training may be sloppy, what is quoted may not: parameters are promoted to float64, and the steps of a continuous
    flow are increased until its log-dets are accurate.

    Args:
        where: a run directory, or the name of a pretrained model.
        tolerance: largest integration error of log q, in nats.
    """
    directory = find(where)
    recorded = read_config(directory)
    configuration = Configuration.from_dict(recorded)
    flow = configuration.architecture.build(configuration.theory, torch.float64)
    flow.load_state_dict(_weights(directory))
    steps, known = recorded.get("refined_steps"), recorded.get("refined_tolerance", math.inf) <= tolerance
    candidates = (steps,) if known and steps in N_STEPS else N_STEPS
    return Trained(configuration, refined(flow, tolerance, candidates), directory)


def find(where: Path | str) -> Path:
    """The folder of a run, or of the pretrained model of that name; ValueError lists what there is."""
    for directory in (Path(where), MODELS / where):
        if (directory / "config.json").is_file():
            return directory
    known = sorted(path.parent.name for path in MODELS.glob("*/config.json"))
    raise ValueError(
        f"expected a run directory with a config.json or a pretrained model ({', '.join(known) or 'none here'}), "
        f"got {str(where)!r}: train one with `latflow train`"
    )


def read_config(directory: Path) -> dict[str, Any]:
    """config.json as plain data."""
    try:
        data = json.loads((directory / "config.json").read_text())
    except ValueError as error:
        raise ValueError(f"expected JSON in {directory / 'config.json'}, got {error}: restore the file") from error
    if not isinstance(data, dict):
        raise ValueError(f"expected an object in {directory / 'config.json'}, got {data!r}: restore the file")
    return data


def refined(
    flow: Transformed, tolerance: float = 1e-4, candidates: Sequence[int] = N_STEPS, n_samples: int = 32
) -> Transformed:
    """The same flow, integrated by dop853 with enough steps for log q accurate to `tolerance` nats; others unchanged.

    The largest error of `n_samples` samples is held below the tolerance, so that the error of log Z, a mean, is far
    below the statistical one. A single candidate is taken on trust: it was measured before.
    """
    bijection = flow.bijection
    if not isinstance(bijection, IntegratedFlow):
        return flow
    if len(candidates) == 1:
        return Transformed(flow.base, bijection.refined(candidates[0], "dop853"))
    generator = torch.Generator(bijection.theta.device).manual_seed(0)
    z = flow.base.sample(n_samples, generator=generator)
    for n_steps in candidates:
        finer = bijection.refined(n_steps, "dop853")
        if float(finer.integration_error(z, log_prob=flow.base.log_prob).max()) <= tolerance:
            return Transformed(flow.base, finer)
    raise ValueError(
        f"expected log q accurate to {tolerance} nats in {candidates[-1]} steps, got worse: train it more gently"
    )


def _weights(directory: Path) -> dict[str, Tensor]:
    """The state of a model folder, or of the newest complete checkpoint of a run."""
    if (directory / "weights.pt").is_file():
        return torch.load(directory / "weights.pt", weights_only=True, map_location="cpu")
    found = checkpoints.latest(directory / "checkpoints")
    if found is None:
        raise ValueError(f"expected a checkpoint in {directory / 'checkpoints'}, got none: train longer, or --resume")
    return found.content["model"]
