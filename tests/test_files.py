"""Ensembles in .npz and HDF5: they return to the bit, and everything that can be wrong with a file is said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lattices.fields import FieldSpace
from lattices.files import Ensemble, append_hdf5, read, write
from lattices.files.ensemble import axes, described
from lattices.lattice import Lattice
from lattices.theories.free_field import FreeField
from lattices.theories.phi4 import Phi4
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.wilson import link_field

EXTENTS = (2, 4, 3, 5)
SPACES = [*FieldSpace.examples(), link_field(EXTENTS, 3), link_field((2, 3, 2), 4), FieldSpace(Lattice((5,)))]


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def configuration(n: int = 3, extents: tuple[int, ...] = EXTENTS, dtype: torch.dtype = torch.float64) -> Ensemble:
    """One rough configuration, not symmetric in any way: links near the identity, so that the plaquette is large."""
    space = link_field(extents, n)
    identity = torch.eye(n, dtype=dtype.to_complex()).expand(1, *space.event_shape)
    return Ensemble(space, space.exp(identity, 0.3 * space.target.normal(identity, seeded())))


def same(a: Ensemble, b: Ensemble) -> None:
    assert a.field == b.field
    assert a.theory == b.theory
    assert set(a.measured) == set(b.measured)
    for one, other in [(a.x, b.x), *((a.measured[name], b.measured[name]) for name in a.measured)]:
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def edited(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


# ----------------------------------------------------------------------------------------------- ensembles, any field


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_ensembles_return_to_the_bit(space: FieldSpace, dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
    ensemble = Ensemble(
        space,
        space.random(3, seeded(), dtype),
        {"log_weights": torch.randn(3, generator=seeded()), "chain": torch.arange(3)},
        information={"purpose": "ωρδ"},
    )
    found = read(write(tmp_path / f"some{suffix}", ensemble), space)
    same(found, ensemble)
    assert found.information == ensemble.information


THEORIES = [
    Phi4(extents=(3, 4), mass_squared=-4.0, quartic=0.1 + 0.2),
    SUNGauge((2, 3), n=2, beta=2.2),
    0.25 * FreeField((3, 4), mass_squared=1.0) + 0.75 * Phi4((3, 4), -4.0, 8.0),
]


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
@pytest.mark.parametrize("theory", THEORIES, ids=lambda theory: type(theory).__name__)
def test_theories_come_back_as_actions(theory: Phi4, suffix: str, tmp_path: Path) -> None:
    x = theory.field.random(2, seeded())
    found = read(write(tmp_path / f"some{suffix}", Ensemble(theory.field, x, theory=theory)))
    assert found.theory == theory
    assert torch.equal(found.theory(found.x), theory(x))  # type: ignore[operator]


@dataclass(frozen=True)
class Foreign:
    """A theory that the library does not know."""

    extents: tuple[int, ...] = (4, 4)
    coupling: float = 0.3


def test_unknown_theories_stay_what_was_written(tmp_path: Path) -> None:
    space = FieldSpace(Lattice((4, 4)))
    ensemble = Ensemble(space, space.random(1, seeded()), theory=Foreign())  # type: ignore[arg-type]
    found = read(write(tmp_path / "some.npz", ensemble))
    assert found.theory == {"type": "Foreign", "extents": (4, 4), "coupling": 0.3}


def test_files_say_their_conventions() -> None:
    text = described(configuration())
    assert axes(link_field((2, 3), 2)) == "configuration, direction, x_1, x_2, row, column"
    assert axes(FieldSpace(Lattice((4,)))) == "configuration, x_1"
    for word in (
        "latflow",
        '"version": 1',
        "SUN",
        "[2, 4, 3, 5]",
        "normalised Haar on each of the links",
        "complex128",
    ):
        assert word in text


def test_npz_holds_no_pickles(tmp_path: Path) -> None:
    with np.load(write(tmp_path / "some.npz", next(Ensemble.examples())), allow_pickle=False) as archive:
        assert {name: archive[name].dtype.hasobject for name in archive} == dict.fromkeys(
            ("x", "log_weights", "metadata"), False
        )


def test_hdf5_grows_and_is_read_in_part(tmp_path: Path) -> None:
    one = next(Ensemble.examples())
    path, parts = tmp_path / "some.h5", [replace(one, x=one.x + i) for i in range(3)]
    for part in parts:
        append_hdf5(path, part)
    whole = read(path)
    assert torch.equal(whole.x, torch.cat([part.x for part in parts]))
    assert torch.equal(whole.measured["log_weights"], torch.cat([part.measured["log_weights"] for part in parts]))
    some = read(path, start=2, stop=5)
    assert torch.equal(some.x, whole.x[2:5])
    assert torch.equal(read(path, start=-1).x, whole.x[-1:])


def test_an_interrupted_append_adds_nothing(tmp_path: Path) -> None:
    import h5py

    path, ensemble = tmp_path / "some.h5", next(Ensemble.examples())
    write(path, ensemble)
    with h5py.File(path, "r+") as file:
        file["x"].resize(7, axis=0)
    same(read(path), ensemble)
    append_hdf5(path, ensemble)
    assert torch.equal(read(path).x, torch.cat([ensemble.x, ensemble.x]))


def test_hdf5_refuses_what_does_not_belong(tmp_path: Path) -> None:
    path, (one, *_, other) = tmp_path / "some.h5", list(Ensemble.examples())
    append_hdf5(path, one)
    for wrong in (other, replace(one, x=one.x.float()), replace(one, measured={})):
        with pytest.raises(ValueError, match="write another file"):
            append_hdf5(path, wrong)
    with pytest.raises(ValueError, match="empty range"):
        read(path, start=3)


def test_hdf5_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"latflow\[hdf5\]"):
        write(tmp_path / "some.h5", next(Ensemble.examples()))


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_truncated_and_foreign_ensembles_are_refused(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"some{suffix}", configuration())
    with pytest.raises(ValueError, match="copy it again"):
        read(edited(path, lambda content: content[: len(content) // 2]))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_a_corrupt_bit_is_found(suffix: str, tmp_path: Path) -> None:
    ensemble = configuration()
    path = write(tmp_path / f"some{suffix}", ensemble)
    number = ensemble.x[0, 1, 0, 2, 1, 3].numpy().tobytes()
    assert path.read_bytes().count(number) == 1
    with pytest.raises(ValueError, match="copy it again"):
        read(edited(path, lambda content: content.replace(number, bytes([number[0] ^ 1]) + number[1:])))


def test_foreign_archives_are_refused(tmp_path: Path) -> None:
    import h5py

    np.savez(tmp_path / "foreign.npz", x=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", x=np.array([{}]), metadata=np.array(""))
    np.savez(tmp_path / "newer.npz", x=np.zeros(3), metadata=np.array('{"format": "latflow ensemble", "version": 2}'))
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["y"] = np.zeros(3)
    for name, match in (("foreign.npz", "Ensemble"), ("pickled.npz", "numbers"), ("newer.npz", "version 1"),
                        ("foreign.h5", "is it ours")):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            read(tmp_path / name)


def test_mistakes_are_explained(tmp_path: Path) -> None:
    ensemble, space = next(Ensemble.examples()), FieldSpace(Lattice((3, 3)))
    (tmp_path / "text.npz").write_text("no numbers")
    mistakes: dict[str, Callable[[], object]] = {
        "one of the suffixes": lambda: write(tmp_path / "some.dat", ensemble),
        "one that begins with": lambda: read(tmp_path / "text.npz"),
        "expected fields in": lambda: read(write(tmp_path / "some.npz", ensemble), space),
        "check the lattice": lambda: Ensemble(space, ensemble.x),
        "one per configuration": lambda: replace(ensemble, measured={"log_weights": torch.zeros(2)}),
        "names of measured": lambda: replace(ensemble, measured={"x": torch.zeros(3)}),
        "pass theory.field": lambda: replace(ensemble, theory=THEORIES[0]),
    }
    for match, mistake in mistakes.items():
        with pytest.raises(ValueError, match=match):
            mistake()
