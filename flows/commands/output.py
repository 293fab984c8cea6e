"""Where `--out` goes, and in which form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flows.report import Corrected
from lattices.action import Action
from lattices.files import Ensemble, write

SUFFIXES = (".npz", ".h5", ".hdf5")


def ensemble_path(path: Path) -> Path:
    """The file named, as .npz unless its suffix names HDF5; ValueError for formats of single configurations."""
    path = path if path.suffix else path.with_suffix(SUFFIXES[0])
    if path.suffix not in SUFFIXES:
        raise ValueError(f"expected a file name that ends in one of {', '.join(SUFFIXES)}, got {path.name}: rename it")
    return path


def save_samples(path: Path, corrected: Corrected, action: Action) -> Path:
    """Fields, log_weights and metropolis_indices, such that x[metropolis_indices] is the Metropolis chain."""
    numbers = {"log_weights": corrected.samples.log_weights, "metropolis_indices": corrected.chain.indices}
    return write(path, Ensemble(action.field, corrected.samples.measured["x"], numbers, action))


def save_chains(path: Path, x: Tensor, action: Action) -> Path:  # (n_chains, n_steps, *event)
    """Chains of links as one ensemble, with the number of the `chain`; of other fields as they are, in .npz."""
    if action.field.cells == "sites" and path.suffix == ".npz":
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, x=x.cpu().numpy())
        return path
    chain = torch.arange(len(x)).repeat_interleave(x.shape[1])
    return write(path, Ensemble(action.field, x.flatten(0, 1), {"chain": chain}, action))
