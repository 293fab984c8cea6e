"""Ensembles in HDF5: as .npz, but they can grow, and be read in parts."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lattices.files.ensemble import Ensemble, described, replace_file, understood


def write_hdf5(path: Path, ensemble: Ensemble) -> None:
    """Write `x`, the group `measured`, the attributes `metadata` and `n`; to the bit, with checksums on every chunk."""
    replace_file(path, lambda part: _create(part, ensemble))


def append_hdf5(path: Path | str, ensemble: Ensemble) -> None:
    """Add configurations to a file, or make it; ValueError unless field, dtype, theory and names are the same.

    The attribute `n` is written last and readers believe it, so an interrupted append adds nothing.
    """
    path = Path(path)
    if not path.exists():
        return write_hdf5(path, ensemble)
    with _opened(path, "r+") as file:
        arrays = _arrays(ensemble)
        if file.attrs["metadata"] != described(ensemble) or set(arrays) != set(_datasets(file)):
            raise ValueError(
                f"expected more of the ensemble in {path}, {file.attrs['metadata']} with {', '.join(_datasets(file))}, "
                f"got {described(ensemble)} with {', '.join(arrays)}: write another file"
            )
        _extend(file, arrays)
    return None


def read_hdf5(path: Path, start: int = 0, stop: int | None = None) -> Ensemble:
    """The configurations start … stop - 1 (all of them by default); ValueError if the file is foreign or corrupt."""
    with _opened(path, "r") as file:
        space, theory, information = understood(str(file.attrs["metadata"]), path)
        n, datasets = int(file.attrs["n"]), _datasets(file)
        short = [name for name, dataset in datasets.items() if len(dataset) < n]
        part = range(n)[start:stop]
        if short or not part:
            got = f"fewer in {', '.join(short)}" if short else f"the empty range {start} … {stop}"
            raise ValueError(
                f"expected some of {n} configurations, got {got} in {path}: copy it again, or ask for some"
            )
        arrays = {name: _read(dataset, part, path) for name, dataset in datasets.items()}
    return Ensemble(space, arrays.pop("x"), arrays, theory, information)


def _read(dataset: Any, part: range, path: Path) -> Tensor:
    try:
        return torch.from_numpy(dataset[part.start : part.stop])
    except OSError as error:
        raise ValueError(f"expected intact data, got {error} in {path}: copy it again") from error


def _opened(path: Path, mode: str):  # type: ignore[no-untyped-def]  # -> h5py.File
    """The open file, if it is one of ours."""
    try:
        file = _h5py().File(path, mode)
    except OSError as error:
        raise ValueError(f"expected a complete HDF5 file, got {error} in {path}: copy it again") from error
    if not {"metadata", "n"} <= set(file.attrs) or "x" not in file:
        got = ", ".join(file)
        file.close()
        raise ValueError(f"expected x, metadata and n of an ensemble, got {got or 'nothing'} in {path}: is it ours?")
    return file


def _create(path: Path, ensemble: Ensemble) -> None:
    with _h5py().File(path, "w") as file:
        file.attrs["metadata"], file.attrs["n"] = described(ensemble), 0
        for name, tensor in _arrays(ensemble).items():
            shape, place = tuple(tensor.shape[1:]), name if name == "x" else f"measured/{name}"
            chunk = (1, *shape) if shape else (1024,)
            dtype = tensor.detach().cpu().numpy().dtype
            file.create_dataset(place, (0, *shape), dtype, maxshape=(None, *shape), chunks=chunk, fletcher32=True)
        _extend(file, _arrays(ensemble))


def _extend(file: Any, arrays: dict[str, Tensor]) -> None:
    n = int(file.attrs["n"])
    total = n + len(arrays["x"])
    for name, dataset in _datasets(file).items():
        dataset.resize(total, axis=0)
        dataset[n:] = arrays[name].detach().cpu().numpy()
    file.flush()
    file.attrs["n"] = total


def _arrays(ensemble: Ensemble) -> dict[str, Tensor]:
    return {"x": ensemble.x, **ensemble.measured}


def _datasets(file: Any) -> dict[str, Any]:
    return {"x": file["x"], **dict(file.get("measured", {}))}


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "expected h5py for HDF5 files, got none: install it with pip install 'latflow[hdf5]', or write .npz"
        ) from error
    return h5py
