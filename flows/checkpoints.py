"""Checkpoints: tensors and plain Python on disk, complete or not there at all.

    checkpoints/step-00000100/  state.pt  manifest.json (format, step, sha256 of every file)

A checkpoint is written into a temporary directory, forced to the disk and renamed; the last two are kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

from flows.runs import clear_disk_errors, replace_durably, write_durably

FORMAT = "latflow-checkpoint-1"
_NAME = re.compile(r"step-(\d{8,})")


class Checkpoint(NamedTuple):
    """A complete checkpoint: where it lies, the steps done, and what was saved."""

    path: Path
    step: int
    content: dict[str, Any]


class Refused(ValueError):
    """A checkpoint that must not be used; the message says why."""


def save(directory: Path, step: int, content: dict[str, Any], keep: int = 2) -> Path:
    """Write a checkpoint durably, then forget all but the last `keep`.

    Args:
        directory: where checkpoints lie, one directory each.
        step: the number of steps done.
        content: tensors and plain Python; anything else raises TypeError before the disk is touched.
    """
    data = _serialise(content)
    path, temporary = directory / f"step-{step:08d}", directory / f".step-{step:08d}.tmp"
    manifest = {"format": FORMAT, "step": step, "sha256": {"state.pt": _digest(data)}}
    with clear_disk_errors(path):
        try:
            _clear(directory)
            temporary.mkdir(parents=True)
            write_durably(temporary / "state.pt", data)
            write_durably(temporary / "manifest.json", json.dumps(manifest, indent=2).encode())
            if path.exists():  # left by an earlier attempt at this step
                shutil.rmtree(path)
            replace_durably(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    for old in [p for p in _steps(directory) if _step(p) <= step][keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def load(path: Path) -> Checkpoint:
    """Read one checkpoint, or raise `Refused` saying what is wrong with it."""
    manifest = _manifest(path)
    data = (path / "state.pt").read_bytes() if (path / "state.pt").is_file() else b""
    if _digest(data) != manifest["sha256"]["state.pt"]:
        raise Refused(f"{path}: corrupt, state.pt ({len(data)} bytes) differs from its hash in manifest.json")
    return Checkpoint(path, manifest["step"], _deserialise(data, path))


def latest(directory: Path) -> Checkpoint | None:
    """The newest complete checkpoint, or None where nothing was ever saved.

    Corrupt ones are passed over with a warning that names them. When nothing usable is left, ValueError lists what
    was found and why it was refused: a run must not silently start again.
    """
    refused = []
    for path in [*_steps(directory), *_foreign(directory)]:
        try:
            found = load(path)
        except Refused as error:
            refused.append(str(error))
            continue
        for reason in refused:
            warnings.warn(f"checkpoint refused: {reason}; using {found.path} instead", RuntimeWarning, stacklevel=2)
        return found
    if refused:
        listed = "\n  ".join(refused)
        advice = "restore a copy, or empty the directory to start again"
        raise ValueError(f"expected a complete checkpoint in {directory}, got none: {advice}\n  {listed}")
    return None


def _steps(directory: Path) -> list[Path]:
    """Checkpoint directories, newest first."""
    found = [p for p in directory.glob("step-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _foreign(directory: Path) -> list[Path]:
    """What lies there under other names; hidden files are leftovers of interrupted writes."""
    entries = sorted(directory.glob("*"))
    return [p for p in entries if not p.name.startswith(".") and not _NAME.fullmatch(p.name)]


def _clear(directory: Path) -> None:
    for leftover in directory.glob(".step-*.tmp"):
        shutil.rmtree(leftover)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _manifest(path: Path) -> dict[str, Any]:
    if not (path / "manifest.json").is_file():
        raise Refused(f"{path}: foreign, it has no manifest.json")
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        tag, step, digest = manifest["format"], manifest["step"], manifest["sha256"]["state.pt"]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path}: corrupt, manifest.json cannot be read ({error!r})") from error
    if tag != FORMAT:
        raise Refused(f"{path}: foreign, expected format {FORMAT!r}, got {tag!r}")
    if not isinstance(step, int) or not isinstance(digest, str) or path.name != f"step-{step:08d}":
        raise Refused(f"{path}: corrupt, manifest.json speaks of step {step!r}")
    return manifest


def _serialise(content: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise TypeError(
            "expected tensors and plain Python in a checkpoint, got other objects: "
            f"convert them in the update's state ({str(error).splitlines()[0]})"
        ) from error
    return buffer.getvalue()


def _deserialise(data: bytes, path: Path) -> dict[str, Any]:
    try:
        content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise Refused(f"{path}: foreign, state.pt holds more than tensors and plain Python") from error
    if not isinstance(content, dict):
        raise Refused(f"{path}: foreign, expected a dict in state.pt, got {type(content).__name__}")
    return content
