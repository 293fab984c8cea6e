"""The NERSC archive format: a text header with checks, then SU(3) links in four dimensions."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lattices.fields import FieldSpace, Links
from lattices.files.ensemble import LIBRARY, Ensemble, replace_file
from lattices.files.sites import (
    average_plaquette,
    from_site_array,
    link_trace,
    precision_of,
    require_one,
    require_unitary,
    site_array,
)
from lattices.lattice import Lattice
from symmetries.lie import SU3

ROWS = {"4D_SU3_GAUGE": 2, "4D_SU3_GAUGE_3x3": 3}
ORDERS = {"BIG": (">",), "LITTLE": ("<",), "": (">", "<")}
TOLERANCE = {32: 1e-5, 64: 1e-6}
"""Of plaquette and link trace, by the precision of the data; headers carry few digits."""

DESCRIPTION = {
    "ENSEMBLE_ID": LIBRARY, "ENSEMBLE_LABEL": LIBRARY, "SEQUENCE_NUMBER": "0",
    "CREATOR": LIBRARY, "CREATOR_HARDWARE": "unknown",
}  # fmt: skip


def write_nersc(
    path: Path, ensemble: Ensemble, precision: int | None = None, order: str = "BIG", rows: int = 3
) -> None:
    """Write one SU(3) configuration.

    Args:
        precision: 32 or 64; by default that of the links.
        order: "BIG" or "LITTLE" endian.
        rows: 3, or 2 to leave out the third row, which readers reconstruct.
    """
    require_one(ensemble, "NERSC", 3)
    if order not in ("BIG", "LITTLE") or rows not in (2, 3):
        raise ValueError(f"expected order BIG or LITTLE and 2 or 3 rows, got {order!r} and {rows}: choose one")
    require_unitary(ensemble.x, path)
    bits = precision_of(ensemble.x, precision)
    links = site_array(ensemble.x)[..., :rows, :].astype(f"{ORDERS[order][0]}c{bits // 4}")
    text = "".join(f"{key} = {value}\n" for key, value in _header(ensemble, links, f"IEEE{bits}{order}").items())
    header = f"BEGIN_HEADER\n{text}END_HEADER\n".encode()
    replace_file(path, lambda part: part.write_bytes(header + links.tobytes()))


def read_nersc(path: Path) -> Ensemble:
    """The configuration of a file, in its precision, with its header as `information`.

    Checked: size, CHECKSUM, unitarity (within 1e-5), PLAQUETTE and LINK_TRACE (within 1e-5 for 32 bits, 1e-6 for 64).
    FLOATING_POINT without BIG or LITTLE means different things to different codes: the checksum decides.
    """
    content = path.read_bytes()
    header, start = _parsed(content, path)
    extents = tuple(_number(header, f"DIMENSION_{mu}", int, path) for mu in (1, 2, 3, 4))
    links = _links(content[start:], header, extents, path)
    x = from_site_array(_completed(links), extents)
    space = FieldSpace(Lattice(extents), Links(SU3()), "links")
    require_unitary(x, path)
    tolerance = TOLERANCE[links.dtype.itemsize * 4]
    _compare("PLAQUETTE", average_plaquette(x), header, tolerance, path)
    _compare("LINK_TRACE", link_trace(x), header, tolerance, path)
    return Ensemble(space, x, information=header)


def _header(ensemble: Ensemble, links: np.ndarray, floating_point: str) -> dict[str, str]:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    told = {key: ensemble.information.get(key, default) for key, default in DESCRIPTION.items()}
    datatype = next(name for name, rows in ROWS.items() if rows == links.shape[-2])
    return {
        "HDR_VERSION": "1.0",
        "DATATYPE": datatype,
        "STORAGE_FORMAT": "1.0",
        **{f"DIMENSION_{mu}": str(n) for mu, n in enumerate(ensemble.field.lattice.extents, 1)},
        "LINK_TRACE": f"{link_trace(ensemble.x):.12g}",
        "PLAQUETTE": f"{average_plaquette(ensemble.x):.12g}",
        **{f"BOUNDARY_{mu}": "PERIODIC" for mu in (1, 2, 3, 4)},
        "CHECKSUM": f"{checksum(links):x}",
        **told,
        "CREATION_DATE": ensemble.information.get("CREATION_DATE", now),
        "ARCHIVE_DATE": now,
        "FLOATING_POINT": floating_point,
    }


def checksum(links: np.ndarray) -> int:
    """The sum of all 32-bit words of the data, in the byte order of the data, modulo 2³²."""
    words = np.ascontiguousarray(links).reshape(-1).view(np.dtype("u4").newbyteorder(links.dtype.byteorder))
    return int(words.sum(dtype=np.uint64)) % 2**32


def _parsed(content: bytes, path: Path) -> tuple[dict[str, str], int]:
    """The header, and where the data start."""
    found = re.match(rb"BEGIN_HEADER *\r?\n(.*?)END_HEADER *\r?\n", content, re.DOTALL)
    if found is None:
        raise ValueError(f"expected BEGIN_HEADER … END_HEADER, got neither or one in {path}: not NERSC, or truncated")
    lines = (line.partition("=") for line in found[1].decode("utf-8", "replace").splitlines())
    return {key.strip(): value.strip() for key, equals, value in lines if equals}, found.end()


def _value(header: dict[str, str], key: str, path: Path) -> str:
    if key not in header:
        raise ValueError(f"expected {key} in the NERSC header, got {', '.join(header)} in {path}: add the line")
    return header[key]


def _number(header: dict[str, str], key: str, kind: Callable[[str], Any], path: Path) -> Any:
    try:
        return kind(_value(header, key, path).split()[0])
    except (ValueError, IndexError) as error:
        raise ValueError(f"expected a number as {key} of the NERSC header, got {error} in {path}") from error


def _links(data: bytes, header: dict[str, str], extents: tuple[int, ...], path: Path) -> np.ndarray:
    """The stored rows of all links, (V, 4, rows, 3), in the byte order that the checksum confirms."""
    datatype, name = _value(header, "DATATYPE", path), _value(header, "FLOATING_POINT", path)
    floating = re.fullmatch(r"IEEE(32|64)(BIG|LITTLE|)", name)
    if datatype not in ROWS or floating is None:
        raise ValueError(
            f"expected DATATYPE {' or '.join(ROWS)} and FLOATING_POINT IEEE32 or IEEE64 (BIG, LITTLE or neither), "
            f"got {datatype} and {name} in {path}: other NERSC data are not links of SU(3)"
        )
    shape, bits = (int(np.prod(extents)), 4, ROWS[datatype], 3), int(floating[1])
    if len(data) != int(np.prod(shape)) * bits // 4:
        expected = int(np.prod(shape)) * bits // 4
        raise ValueError(
            f"expected {expected} bytes of data, got {len(data)} in {path}: it is truncated; copy it again"
        )
    told = _number(header, "CHECKSUM", partial(int, base=16), path)
    candidates = [np.frombuffer(data, f"{order}c{bits // 4}").reshape(shape) for order in ORDERS[floating[2]]]
    matching = [links for links in candidates if checksum(links) == told]
    if not matching:
        got = " or ".join(f"{checksum(links):x}" for links in candidates)
        raise ValueError(
            f"expected CHECKSUM {told:x}, got {got} in {path}: the data are corrupt or not {name}; copy it again"
        )
    return matching[0]


def _completed(links: np.ndarray) -> np.ndarray:  # (V, 4, 2 or 3, 3) -> (V, 4, 3, 3)
    """The third row of an SU(3) matrix is the complex conjugate of the cross product of the others."""
    third = np.cross(links[..., 0, :], links[..., 1, :]).conj()
    return np.concatenate([links[..., :2, :], third[..., None, :]], -2) if links.shape[-2] == 2 else links


def _compare(key: str, found: float, header: dict[str, str], tolerance: float, path: Path) -> None:
    told = _number(header, key, float, path)
    if not abs(found - told) <= tolerance:
        raise ValueError(
            f"expected {key} {told} within {tolerance}, got {found:.12g} in {path}: the links are in another order, "
            "or the header is of another configuration"
        )
