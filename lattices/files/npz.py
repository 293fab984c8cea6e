"""Ensembles as numpy archives: one array per quantity, one text with the conventions, nothing pickled."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from lattices.files.ensemble import Ensemble, described, replace_file, understood


def write_npz(path: Path, ensemble: Ensemble) -> None:
    """Write `x`, every measured array under its name, and the text `metadata`; bit for bit what they are."""
    arrays = {"x": ensemble.x, **ensemble.measured}
    numbers = {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()}
    replace_file(path, lambda part: _save(part, {**numbers, "metadata": np.array(described(ensemble))}))


def read_npz(path: Path) -> Ensemble:
    """The ensemble in a file of `write_npz`; ValueError if it is foreign, truncated or corrupt."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ValueError(f"expected a complete .npz of numbers, got {error} in {path}: copy it again") from error
    if not {"x", "metadata"} <= set(arrays):
        raise ValueError(
            f"expected the arrays x and metadata of an ensemble, got {', '.join(arrays) or 'none'} in {path}: "
            "make an Ensemble(field, torch.from_numpy(…)) of it and write that"
        )
    space, theory, information = understood(str(arrays.pop("metadata")), path)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Ensemble(space, tensors.pop("x"), tensors, theory, information)


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
