"""Files of other lattice codes: bytes assembled here by hand, the order of links, and everything that can be wrong."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lattices.files import Ensemble, read, write
from lattices.files.ildg import scidac_checksum
from lattices.files.lime import HEADER, MAGIC, Record, packed, unpacked
from lattices.files.nersc import checksum
from lattices.files.sites import average_plaquette, from_site_array, link_trace, site_array
from lattices.loops import transporter
from lattices.theories.wilson import link_field
from tests.test_files import configuration, edited, same, seeded


def flipped(content: bytes, at: int = -9) -> bytes:
    """One bit of one byte is wrong: of a mantissa, so that links stay nearly unitary."""
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


# ------------------------------------------------------------------------------------- links: x, y, z, t and our axes


def test_x_is_fastest() -> None:
    ensemble = configuration(extents=(2, 4, 6, 8))
    sites, (lx, ly, lz, _) = site_array(ensemble.x), (2, 4, 6, 8)
    x, y, z, t = 1, 2, 5, 7
    rank = x + lx * (y + ly * (z + lz * t))
    assert np.array_equal(sites[rank], ensemble.x[0, :, x, y, z, t].numpy())
    assert torch.equal(from_site_array(sites, (2, 4, 6, 8)), ensemble.x)


def plaquette_by_loops(links: np.ndarray, extents: tuple[int, ...]) -> float:
    """⟨Re Tr P⟩ / 3 of links in the order of the files, site by site: an independent definition."""

    def rank(site: list[int]) -> int:
        return int(np.ravel_multi_index([n % size for n, size in zip(site[::-1], extents[::-1])], extents[::-1]))

    total, planes = 0.0, [(mu, nu) for mu in range(4) for nu in range(mu)]
    for site in np.ndindex(*extents):
        for mu, nu in planes:
            ahead = [[n + (axis == direction) for axis, n in enumerate(site)] for direction in (mu, nu)]
            here, u, v = rank(list(site)), links[rank(ahead[0])], links[rank(ahead[1])]
            loop = links[here, mu] @ u[nu] @ v[mu].conj().T @ links[here, nu].conj().T
            total += np.trace(loop).real / 3
    return total / len(planes) / int(np.prod(extents))


def test_the_plaquette_of_a_file_is_that_of_its_definition() -> None:
    ensemble = configuration(extents=(2, 1, 3, 2))
    by_hand = plaquette_by_loops(site_array(ensemble.x), (2, 1, 3, 2))
    assert average_plaquette(ensemble.x) == pytest.approx(by_hand, abs=1e-13)
    turned = site_array(ensemble.x)[:, ::-1]
    assert abs(plaquette_by_loops(turned, (2, 1, 3, 2)) - by_hand) > 1e-2


# -------------------------------------------------------------------------------------------------------------- NERSC


def by_hand_nersc(ensemble: Ensemble, name: str, rows: int, bits: int, order: str) -> bytes:
    """A file as another code would write it, number by number."""
    extents, data = ensemble.field.lattice.extents, b""
    for t, z, y, x in np.ndindex(*extents[::-1]):
        for mu in range(4):
            for value in ensemble.x[0, mu, x, y, z, t, :rows].flatten().tolist():
                data += struct.pack(f"{order}2{'f' if bits == 32 else 'd'}", value.real, value.imag)
    total = sum(struct.unpack(f"{order}{len(data) // 4}I", data)) % 2**32
    lines = ["BEGIN_HEADER", f"DATATYPE = {'4D_SU3_GAUGE' if rows == 2 else '4D_SU3_GAUGE_3x3'}"]
    lines += [f"DIMENSION_{mu} = {n}" for mu, n in enumerate(extents, 1)]
    lines += [f"CHECKSUM =   {total:x}", f"LINK_TRACE = {link_trace(ensemble.x):.9f}"]
    lines += [f"PLAQUETTE = {average_plaquette(ensemble.x):.9f}", f"FLOATING_POINT = {name}", "END_HEADER", ""]
    return "\n".join(lines).encode() + data


NAMES = [("IEEE32", ">"), ("IEEE32", "<"), ("IEEE32BIG", ">"), ("IEEE32LITTLE", "<"), ("IEEE64", "<"),
         ("IEEE64BIG", ">"), ("IEEE64LITTLE", "<")]  # fmt: skip


@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize(("name", "order"), NAMES)
def test_nersc_of_another_code(name: str, order: str, rows: int, tmp_path: Path) -> None:
    ensemble, bits = configuration(extents=(2, 1, 3, 2)), int(name[4:6])
    (tmp_path / "lat.1").write_bytes(by_hand_nersc(ensemble, name, rows, bits, order))
    found = read(tmp_path / "lat.1", link_field((2, 1, 3, 2), 3))
    assert found.x.dtype == (torch.complex64 if bits == 32 else torch.complex128)
    assert float((found.x - ensemble.x).abs().max()) < (1e-7 if bits == 32 else 1e-14)
    assert found.information["FLOATING_POINT"] == name


@pytest.mark.parametrize("order", ["BIG", "LITTLE"])
@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nersc_round_trip(dtype: torch.dtype, rows: int, order: str, tmp_path: Path) -> None:
    ensemble = replace(configuration(dtype=dtype), information={"ENSEMBLE_ID": "b6.0", "SEQUENCE_NUMBER": "17"})
    found = read(write(tmp_path / "some.nersc", ensemble, rows=rows, order=order))
    assert found.information["ENSEMBLE_ID"] == "b6.0"
    assert found.information["SEQUENCE_NUMBER"] == "17"
    assert torch.equal(found.x[..., :rows, :], ensemble.x[..., :rows, :])
    torch.testing.assert_close(found.x, ensemble.x)


def test_nersc_writes_the_bytes_of_the_fixture(tmp_path: Path) -> None:
    ensemble = configuration(extents=(2, 1, 3, 2))
    content = write(tmp_path / "some.nersc", ensemble, precision=32).read_bytes()
    by_hand = by_hand_nersc(ensemble, "IEEE32BIG", 3, 32, ">")
    assert content.split(b"END_HEADER\n")[1] == by_hand.split(b"END_HEADER\n")[1]
    header, data = (part.decode("latin1") for part in by_hand.split(b"END_HEADER\n"))
    told = re.search(r"CHECKSUM = *(\w+)", header)
    assert told is not None
    assert f"CHECKSUM = {told[1]}\n".encode() in content
    assert checksum(np.frombuffer(data.encode("latin1"), ">c8")) == int(told[1], 16)


def scaled(content: bytes) -> bytes:
    """All links times 1.001, with the checksum of that."""
    header, data = content.split(b"END_HEADER\n")
    links = (np.frombuffer(data, ">c16") * 1.001).astype(">c16")
    told = re.sub(rb"CHECKSUM = \w+", f"CHECKSUM = {checksum(links):x}".encode(), header)
    return told + b"END_HEADER\n" + links.tobytes()


def mirrored(content: bytes) -> bytes:
    """The links of another code, which stores the directions t, z, y, x: all checks but the plaquette agree."""
    header, data = content.split(b"END_HEADER\n")
    return header + b"END_HEADER\n" + np.frombuffer(data, ">c16").reshape(-1, 4, 9)[:, ::-1].tobytes()


NERSC_FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "CHECKSUM .* corrupt": flipped,
    "not IEEE64LITTLE": lambda content: content.replace(b"IEEE64BIG", b"IEEE64LITTLE"),
    "truncated": lambda content: content[:-16],
    "not NERSC, or truncated": lambda content: content[:100],
    "bytes of data": lambda content: content.replace(b"DIMENSION_1 = 2", b"DIMENSION_1 = 4"),
    "PLAQUETTE .* another order": mirrored,
    "LINK_TRACE": lambda content: re.sub(rb"LINK_TRACE = 0.", b"LINK_TRACE = 1.", content),
    "special unitary": scaled,
    "not links of SU": lambda content: content.replace(b"4D_SU3_GAUGE_3x3", b"4D_SU2_GAUGE"),
    "add the line": lambda content: content.replace(b"PLAQUETTE", b"PLAKETTE"),
    "expected a number as CHECKSUM": lambda content: content.replace(b"CHECKSUM = ", b"CHECKSUM = z"),
}


@pytest.mark.parametrize("match", NERSC_FAULTS)
def test_nersc_faults_are_found(match: str, tmp_path: Path) -> None:
    path = write(tmp_path / "some.nersc", configuration())
    read(path)
    with pytest.raises(ValueError, match=match):
        read(edited(path, NERSC_FAULTS[match]))


# --------------------------------------------------------------------------------------------------------------- ILDG


def by_hand_record(name: str, data: bytes) -> bytes:
    """A LIME record that is a message of its own."""
    header = bytes.fromhex("456789ab0001c000") + len(data).to_bytes(8, "big") + name.encode().ljust(128, b"\0")
    return header + data + b"\0" * ((8 - len(data) % 8) % 8)


def by_hand_checksum(sites: list[bytes]) -> tuple[int, int]:
    a = b = 0
    for rank, site in enumerate(sites):
        bits = f"{zlib.crc32(site):032b}"
        a ^= int(bits[rank % 29 :] + bits[: rank % 29], 2)
        b ^= int(bits[rank % 31 :] + bits[: rank % 31], 2)
    return a, b


def by_hand_ildg(ensemble: Ensemble, bits: int) -> bytes:
    extents, sites = ensemble.field.lattice.extents, []
    for t, z, y, x in np.ndindex(*extents[::-1]):
        values = ensemble.x[0, :, x, y, z, t].flatten().tolist()
        numbers = [part for value in values for part in (value.real, value.imag)]
        sites.append(struct.pack(f">{len(numbers)}{'f' if bits == 32 else 'd'}", *numbers))
    sizes = "\n".join(f"  <l{axis}> {n} </l{axis}>" for axis, n in zip("xyzt", extents))
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ildgFormat xmlns="http://www.lqcd.org/ildg"\n'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n'
        f"  <version> 1.0 </version>\n  <field> su3gauge </field>\n  <precision> {bits} </precision>\n{sizes}\n"
        "</ildgFormat>"
    )
    a, b = by_hand_checksum(sites)
    sums = f"<scidacChecksum><version>1.0</version><suma>{a:x}</suma><sumb>{b:08x}</sumb></scidacChecksum>"
    records = {"xlf-info": b"plaquette = 0.5\0", "ildg-format": text.encode()}
    records |= {"ildg-binary-data": b"".join(sites), "scidac-checksum": sums.encode()}
    return b"".join(by_hand_record(*record) for record in records.items())


@pytest.mark.parametrize("bits", [32, 64])
def test_ildg_of_another_code(bits: int, tmp_path: Path) -> None:
    ensemble = configuration(extents=(2, 1, 8, 4))  # more than 31 sites, so that rotations wrap
    (tmp_path / "conf.0001").write_bytes(by_hand_ildg(ensemble, bits))
    found = read(tmp_path / "conf.0001")
    assert found.x.dtype == (torch.complex64 if bits == 32 else torch.complex128)
    assert float((found.x - ensemble.x).abs().max()) < (1e-7 if bits == 32 else 1e-14)
    assert found.information["xlf-info"] == "plaquette = 0.5"


def test_ildg_writes_the_bytes_of_the_fixture(tmp_path: Path) -> None:
    ensemble = configuration(extents=(2, 1, 3, 2))
    path = write(tmp_path / "some.lime", ensemble)
    ours, by_hand = (
        {record.name: bytes(record.data) for record in unpacked(content, path)}
        for content in (path.read_bytes(), by_hand_ildg(ensemble, 64))
    )
    assert ours["ildg-binary-data"] == by_hand["ildg-binary-data"]
    sums = [re.findall(rb"<sum.>0*(\w+)</sum.>", records["scidac-checksum"]) for records in (ours, by_hand)]
    assert sums[0] == sums[1]
    assert ours["ildg-data-lfn"] == b"lfn://latflow/some.lime"


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_ildg_round_trip(dtype: torch.dtype, n: int, tmp_path: Path) -> None:
    ensemble = replace(configuration(n, dtype=dtype), information={"ildg-data-lfn": "lfn://ours/1"})
    found = read(write(tmp_path / "some.ildg", ensemble))
    same(found, ensemble)
    assert found.information["ildg-data-lfn"] == "lfn://ours/1"
    single = read(write(tmp_path / "single.ildg", ensemble, precision=32))
    assert torch.equal(single.x, ensemble.x.to(torch.complex64))


def test_lime_flags_and_padding() -> None:
    content = b"".join(packed([Record("first", b"12345"), Record("second", b""), Record("third", b"12345678")]))
    assert len(content) == 3 * 144 + 8 + 0 + 8
    flags = [HEADER.unpack(content[start : start + 144])[2] for start in (0, 152, 296)]
    assert flags == [0x8000, 0, 0x4000]
    assert HEADER.unpack(content[:144])[0] == MAGIC
    assert content[149:152] == b"\0\0\0"


def unlike(n: int) -> Callable[[bytes], bytes]:
    """Another size in the format record."""
    return lambda content: content.replace(b"<lx>2</lx>", f"<lx>{n}</lx>".encode())


def stretched(content: bytes) -> bytes:
    """The links times 1.001, without a checksum."""
    records = unpacked(content, Path("some"))
    links = (np.frombuffer(records[1].data, ">c16") * 1.001).astype(">c16")
    return b"".join(packed([records[0], Record("ildg-binary-data", links.tobytes())]))


ILDG_FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "SciDAC checksums": lambda content: flipped(content, 1000),
    "truncated": lambda content: content[:5000],
    "header of 144 bytes": lambda content: content + b"\x45\x67",
    "no LIME file": lambda content: content + bytes(144),
    "format record is not true": unlike(3),
    "only links of": lambda content: content.replace(b"su3gauge", b"fermion3"),
    "precision 32 or 64": lambda content: content.replace(b"<precision>64", b"<precision>16"),
    "XML": lambda content: content.replace(b"</ildgFormat>", b"</ildgFormal>"),
    "one record ildg-binary-data": lambda content: content.replace(b"ildg-binary-data", b"ildg-unary-data\0"),
    "special unitary": stretched,
}


@pytest.mark.parametrize("match", ILDG_FAULTS)
def test_ildg_faults_are_found(match: str, tmp_path: Path) -> None:
    path = write(tmp_path / "some.lime", configuration())
    read(path)
    with pytest.raises(ValueError, match=match):
        read(edited(path, ILDG_FAULTS[match]))


def test_sums_see_the_order_of_sites() -> None:
    links = site_array(configuration().x)
    assert scidac_checksum(links) != scidac_checksum(links[::-1])


@pytest.mark.parametrize("suffix", [".nersc", ".lime"])
def test_links_that_do_not_fit_are_refused(suffix: str, tmp_path: Path) -> None:
    path, four = tmp_path / f"some{suffix}", configuration()
    two, circles = link_field((2, 2), 3), link_field((2, 2, 2, 2), 1)
    bad = {
        "in 4 dimensions": Ensemble(two, two.random(1, seeded())),
        r"one configuration per": replace(four, x=four.x.expand(2, *four.x.shape[1:])),
        "special unitary": replace(four, x=1.01 * four.x),
        "special unitary links": replace(four, x=1j * four.x),
        "write .npz or .h5": Ensemble(circles, circles.random(1, seeded())),
    }
    for match, ensemble in bad.items():
        with pytest.raises(ValueError, match=match):
            write(path, ensemble)
    with pytest.raises(ValueError, match="32 or 64"):
        write(path, four, precision=16)
    assert not path.exists()


def test_nersc_is_for_su3_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"SU\(3\)"):
        write(tmp_path / "some.nersc", configuration(2))
    with pytest.raises(ValueError, match="BIG or LITTLE"):
        write(tmp_path / "some.nersc", configuration(), order="MIDDLE")


def test_formats_are_exchanged(tmp_path: Path) -> None:
    """NERSC → ILDG → HDF5 → npz: the loops are what they were."""
    found = start = configuration()
    for name in ("a.nersc", "b.lime", "c.h5", "d.npz"):
        found = read(write(tmp_path / name, found))
    assert torch.equal(found.x, start.x)
    loop = (1, 2, 4, -1, -2, -4)
    assert torch.equal(transporter(found.x[0:1], loop), transporter(start.x, loop))
