"""Configurations in files: `read(path)` and `write(path, ensemble)`.

| format | suffix        | holds                                | checks                                        |
|--------|---------------|--------------------------------------|-----------------------------------------------|
| npz    | .npz          | any ensemble, to the bit             | checksums, format, shape                      |
| HDF5   | .h5, .hdf5    | the same; grows, and is read in part | checksums, format, shape                      |
| NERSC  | .nersc        | one SU(3) configuration in d = 4     | checksum, plaquette, link trace, unitarity    |
| ILDG   | .lime, .ildg  | one SU(N) configuration in d = 4     | container, checksum, unitarity                |

Reading looks at the first bytes, not at the suffix. `append_hdf5` adds to a file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lattices.fields import FieldSpace
from lattices.files.ensemble import Ensemble
from lattices.files.hdf5 import append_hdf5, read_hdf5, write_hdf5
from lattices.files.ildg import read_ildg, write_ildg
from lattices.files.nersc import read_nersc, write_nersc
from lattices.files.npz import read_npz, write_npz

__all__ = ["FORMATS", "Ensemble", "append_hdf5", "read", "write"]


class Format(NamedTuple):
    """A way to store ensembles: how its files begin and end, and who reads and writes them."""

    magic: bytes
    suffixes: tuple[str, ...]
    read: Callable[..., Ensemble]
    write: Callable[..., None]


FORMATS = {
    "npz": Format(b"PK\x03\x04", (".npz",), read_npz, write_npz),
    "HDF5": Format(b"\x89HDF\r\n\x1a\n", (".h5", ".hdf5"), read_hdf5, write_hdf5),
    "NERSC": Format(b"BEGIN_HEADER", (".nersc",), read_nersc, write_nersc),
    "ILDG": Format(b"\x45\x67\x89\xab", (".lime", ".ildg"), read_ildg, write_ildg),
}


def read(path: Path | str, field: FieldSpace | None = None, **options: Any) -> Ensemble:
    """The ensemble in a file of any of the formats, checked; ValueError says what is wrong with the file.

    Args:
        path: of the file; its first bytes tell the format.
        field: the space its configurations must live in, if you know: action.field.
        options: of the format: start and stop for HDF5.
    """
    path = Path(path)
    with path.open("rb") as file:
        beginning = file.read(16)
    found = [known for known in FORMATS.values() if beginning.startswith(known.magic)]
    if not found:
        raise ValueError(f"expected a file of {', '.join(FORMATS)}, got one that begins with {beginning!r}: {path}")
    ensemble = found[0].read(path, **options)
    if field is not None and ensemble.field != field:
        raise ValueError(
            f"expected fields in {field}, got {ensemble.field} in {path}: read it without field, or another"
        )
    return ensemble


def write(path: Path | str, ensemble: Ensemble, **options: Any) -> Path:
    """Write an ensemble in the format that the suffix names; the file is complete or absent.

    Args:
        path: with one of the suffixes of `FORMATS`.
        ensemble: what to write.
        options: of the format: precision, order and rows for NERSC, precision for ILDG.
    """
    path = Path(path)
    found = [known for known in FORMATS.values() if path.suffix.lower() in known.suffixes]
    if not found:
        known = ", ".join(suffix for format in FORMATS.values() for suffix in format.suffixes)
        raise ValueError(f"expected a file name with one of the suffixes {known}, got {path.name}: rename it")
    found[0].write(path, ensemble, **options)
    return path
