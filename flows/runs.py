"""Run directories: what a run leaves behind, written so that a crash leaves the old file or the new one.

`runs/<name>/` holds config.json, environment.json, metrics.jsonl, checkpoints/, results.json and figures/.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from flows import parallel

_PACKAGES = ("latflow", "torch", "normflows", "e3nn", "numpy", "scipy")


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(temporary: Path, path: Path) -> None:
    """Rename atomically, and wait until the new name is on the disk."""
    os.replace(temporary, path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file such that a reader, or a crash, sees the old content or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with clear_disk_errors(path):
        try:
            write_durably(temporary, data)
            replace_durably(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `plain(value)` as indented JSON."""
    atomic_write(path, (json.dumps(plain(value), indent=2, allow_nan=False) + "\n").encode())


@contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """Say what could not be written, and what to do about it, when the disk is full or fails."""
    try:
        yield
    except OSError as error:
        advice = "make room or choose another directory, then resume; complete earlier checkpoints are untouched"
        message = f"expected to write {path}, got '{error.strerror}': {advice}"
        raise OSError(error.errno, message) from error


def plain(value: Any) -> Any:
    """What JSON can hold of a value: dataclasses become {"type": name, **fields}, non-finite numbers null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.repr}
        return {"type": type(value).__name__, **plain(fields)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def write_config(directory: Path, config: Any) -> None:
    """Write config.json: the resolved configuration, dataclasses and all."""
    atomic_write_json(Path(directory) / "config.json", config)


def write_environment(directory: Path, seed: int, device: torch.device | str) -> None:
    """Write environment.json: versions, seed, device, threads, world size."""
    device = torch.device(device)
    environment = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "seed": seed,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "world_size": parallel.world_size(),
    }
    atomic_write_json(Path(directory) / "environment.json", environment)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line cut short by a crash is left out."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def truncate_metrics(path: Path, step: int) -> list[dict[str, Any]]:
    """Drop what was recorded after `step`, and return what remains."""
    kept = [record for record in read_metrics(path) if record["step"] <= step]
    atomic_write(path, "".join(json.dumps(record) + "\n" for record in kept).encode())
    return kept
