"""LIME, the container of ILDG and SciDAC files: a sequence of records, each a 144-byte header and padded data.

Header, big-endian: the magic number 0x456789ab, version, flags (the first and last record of a message), the length
of the data, and a name of 128 bytes. Data are padded with zeros to a multiple of 8 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = 0x456789AB
HEADER = struct.Struct(">IHHQ128s")
FIRST, LAST = 0x8000, 0x4000


class Record(NamedTuple):
    """A named piece of data."""

    name: str
    data: bytes | memoryview


def packed(records: list[Record]) -> Iterator[bytes | memoryview]:
    """The bytes of one message made of these records, piece by piece."""
    for i, (name, data) in enumerate(records):
        flags = FIRST * (i == 0) | LAST * (i == len(records) - 1)
        yield HEADER.pack(MAGIC, 1, flags, len(data), name.encode())
        yield data
        yield bytes(-len(data) % 8)


def unpacked(content: bytes, path: Path) -> list[Record]:
    """The records of a file, of all its messages, in order; ValueError where a header or data are not complete."""
    view, start, records = memoryview(content), 0, []
    while start < len(view):
        name, length = _header(view[start : start + HEADER.size], start, path)
        start += HEADER.size
        if start + length > len(view):
            raise ValueError(
                f"expected {length} bytes in record {name}, got {len(view) - start} in {path}: it is truncated; "
                "copy it again"
            )
        records.append(Record(name, view[start : start + length]))
        start += length + -length % 8
    return records


def _header(data: memoryview, start: int, path: Path) -> tuple[str, int]:
    """The name of a record and the length of its data."""
    if len(data) < HEADER.size:
        raise ValueError(f"expected a LIME header of 144 bytes, got {len(data)} at the end of {path}: it is truncated")
    magic, version, _, length, name = HEADER.unpack(data)
    if magic != MAGIC or version != 1:
        raise ValueError(
            f"expected magic {MAGIC:#x} and version 1, got {magic:#x} and {version} at byte {start} of {path}: it is "
            "no LIME file, or corrupt"
        )
    return name.split(b"\0", 1)[0].decode("ascii", "replace"), length
