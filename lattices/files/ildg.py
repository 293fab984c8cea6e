"""ILDG files: SU(N) links in four dimensions in a LIME container, with the SciDAC checksum."""

from __future__ import annotations

import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from lattices.fields import FieldSpace, Links
from lattices.files.ensemble import LIBRARY, Ensemble, replace_file
from lattices.files.lime import Record, packed, unpacked
from lattices.files.sites import from_site_array, precision_of, require_one, require_unitary, site_array
from lattices.lattice import Lattice
from symmetries.lie import SUN

NAMESPACE = "http://www.lqcd.org/ildg"
FORMAT, BINARY, CHECKSUM, NAME = "ildg-format", "ildg-binary-data", "scidac-checksum", "ildg-data-lfn"
PROLOGUE = '<?xml version="1.0" encoding="UTF-8"?>'


def write_ildg(path: Path, ensemble: Ensemble, precision: int | None = None) -> None:
    """Write one configuration: the format, the links (big-endian), their checksum, the logical file name.

    The standard knows the field "su3gauge" only; other N are written in its manner, as "su2gauge" and so on, which
    not every code will read. The logical file name is `information["ildg-data-lfn"]`.

    Args:
        precision: 32 or 64; by default that of the links.
    """
    n = require_one(ensemble, "ILDG").n
    require_unitary(ensemble.x, path)
    bits = precision_of(ensemble.x, precision)
    links = site_array(ensemble.x).astype(f">c{bits // 4}")
    a, b = scidac_checksum(links)
    logical_name = ensemble.information.get(NAME, f"lfn://{LIBRARY}/{path.name}")
    records = [
        Record(FORMAT, _format(n, bits, ensemble.field.lattice.extents).encode()),
        Record(BINARY, links.tobytes()),
        Record(CHECKSUM, _checksum_text(a, b).encode()),
        Record(NAME, logical_name.encode()),
    ]
    replace_file(path, lambda part: part.write_bytes(b"".join(packed(records))))


def read_ildg(path: Path) -> Ensemble:
    """The configuration of a file, in its precision; all its records of text become `information`.

    Checked: the container, size, the SciDAC checksum where there is one, unitarity (within 1e-5). One configuration
    per file.
    """
    records = unpacked(path.read_bytes(), path)
    n, bits, extents = _understood(_only(records, FORMAT, path), path)
    data, shape = _only(records, BINARY, path), (int(np.prod(extents)), 4, n, n)
    if len(data) != int(np.prod(shape)) * bits // 4:
        expected = int(np.prod(shape)) * bits // 4
        raise ValueError(
            f"expected {expected} bytes of links, got {len(data)} in {path}: its format record is not true"
        )
    links = np.frombuffer(data, f">c{bits // 4}").reshape(shape)
    if any(record.name == CHECKSUM for record in records):
        _compare(scidac_checksum(links), _only(records, CHECKSUM, path), path)
    space, x = FieldSpace(Lattice(extents), Links(SUN(n)), "links"), from_site_array(links, extents)
    require_unitary(x, path)
    texts = {name: bytes(text).rstrip(b"\0").decode("utf-8", "replace") for name, text in records if name != BINARY}
    return Ensemble(space, x, information=texts)


def scidac_checksum(links: np.ndarray) -> tuple[int, int]:  # (V, …), in the byte order of the file
    """Σ_⊕ rotl(crc32(site r), r mod 29) and the same with 31: exclusive or over sites, x fastest."""
    crcs = np.array([zlib.crc32(site.tobytes()) for site in links], dtype=np.uint64)
    ranks = np.arange(len(links), dtype=np.uint64)
    a, b = (_xor_of_rotated(crcs, ranks % np.uint64(prime)) for prime in (29, 31))
    return a, b


def _xor_of_rotated(words: np.ndarray, turns: np.ndarray) -> int:
    rotated = (words << turns) | (words >> (np.uint64(32) - turns))
    return int(np.bitwise_xor.reduce(rotated)) % 2**32


def _format(n: int, bits: int, extents: tuple[int, ...]) -> str:
    sizes = "".join(f"<l{axis}>{size}</l{axis}>" for axis, size in zip("xyzt", extents))
    parts = f"<version>1.0</version><field>su{n}gauge</field><precision>{bits}</precision>{sizes}"
    return f'{PROLOGUE}<ildgFormat xmlns="{NAMESPACE}">{parts}</ildgFormat>'


def _checksum_text(a: int, b: int) -> str:
    return f"{PROLOGUE}<scidacChecksum><version>1.0</version><suma>{a:x}</suma><sumb>{b:x}</sumb></scidacChecksum>"


def _understood(data: bytes | memoryview, path: Path) -> tuple[int, int, tuple[int, ...]]:
    """N, bits per real number, extents."""
    told = _values(data, FORMAT, path)
    try:
        field, bits = told["field"], int(told["precision"])
        n, extents = (
            int(field.removeprefix("su").removesuffix("gauge")),
            tuple(int(told[f"l{axis}"]) for axis in "xyzt"),
        )
    except (KeyError, ValueError):
        n, bits, extents = 0, 0, ()
    if n < 2 or bits not in (32, 64):
        raise ValueError(
            f"expected a field suNgauge, precision 32 or 64, and lx, ly, lz, lt, got {told} in {path}: only links of "
            "SU(N) in four dimensions are read"
        )
    return n, bits, extents


def _compare(found: tuple[int, int], data: bytes | memoryview, path: Path) -> None:
    told = _values(data, CHECKSUM, path)
    written = tuple(int(told.get(key, "0"), 16) for key in ("suma", "sumb"))
    if written != found:
        raise ValueError(
            f"expected SciDAC checksums {written[0]:x} {written[1]:x}, got {found[0]:x} {found[1]:x} in {path}: the "
            "links are corrupt; copy it again"
        )


def _values(data: bytes | memoryview, name: str, path: Path) -> dict[str, str]:
    """The texts of the elements of a flat XML record, by their names without namespace."""
    try:
        root = ElementTree.fromstring(bytes(data).rstrip(b"\0"))
    except ElementTree.ParseError as error:
        raise ValueError(f"expected XML in record {name}, got {error} in {path}: it is corrupt") from error
    return {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in root}


def _only(records: list[Record], name: str, path: Path) -> bytes | memoryview:
    found = [record.data for record in records if record.name == name]
    if len(found) != 1:
        names = ", ".join(record.name for record in records)
        raise ValueError(f"expected one record {name}, got {len(found)} among {names} in {path}: is it an ILDG file?")
    return found[0]
