"""Checkpoints: complete or absent, the newest complete one wins, and nothing foreign is ever unpickled."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flows import checkpoints

CONTENT: dict[str, Any] = {
    "model": {"weight": torch.arange(4.0, dtype=torch.float64), "phase": torch.tensor([1 + 2j])},
    "count": 3,
    "nested": [{"name": "adam", "rate": 1e-3, "none": None, "betas": (0.9, 0.999)}],
}


class Trap:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('executed')",))


def fill(directory: Path, *steps: int) -> list[Path]:
    return [checkpoints.save(directory, step, {**CONTENT, "step": step}) for step in steps]


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    (path,) = fill(tmp_path, 7)
    found = checkpoints.latest(tmp_path)
    assert found is not None
    assert (found.path, found.step) == (path, 7)
    torch.testing.assert_close(found.content.pop("model"), CONTENT["model"], rtol=0, atol=0)
    assert found.content == {"count": 3, "nested": CONTENT["nested"], "step": 7}
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["sha256"]["state.pt"] == hashlib.sha256((path / "state.pt").read_bytes()).hexdigest()


def test_the_last_two_are_kept_in_numerical_order(tmp_path: Path) -> None:
    fill(tmp_path, 1, 2, 10, 99_999_999, 100_000_000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-100000000", "step-99999999"]
    assert checkpoints.latest(tmp_path).step == 100_000_000  # type: ignore[union-attr]


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path) is None
    assert checkpoints.latest(tmp_path / "missing") is None


def test_leftovers_of_an_interrupted_write_are_ignored_and_removed(tmp_path: Path) -> None:
    leftover = tmp_path / ".step-00000003.tmp"
    leftover.mkdir(parents=True)
    (leftover / "state.pt").write_bytes(b"half")
    assert checkpoints.latest(tmp_path) is None
    fill(tmp_path, 4)
    assert not leftover.exists()


def truncate(path: Path) -> None:
    (path / "state.pt").write_bytes((path / "state.pt").read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray((path / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "state.pt").write_bytes(bytes(data))


def forget_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def forget_state(path: Path) -> None:
    (path / "state.pt").unlink()


def garble_manifest(path: Path) -> None:
    (path / "manifest.json").write_text('{"format": ')


def rename(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "step": 1}))


def retag(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": "somebody-else-3"}))


def forge(path: Path) -> None:
    """A pickle that runs code, with a manifest that vouches for it."""
    buffer = io.BytesIO()
    torch.save({"model": Trap()}, buffer)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"]["state.pt"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    (path / "state.pt").write_bytes(buffer.getvalue())
    (path / "manifest.json").write_text(json.dumps(manifest))


DAMAGES = {
    truncate: "corrupt",
    flip: "corrupt",
    forget_state: "corrupt",
    garble_manifest: "corrupt",
    rename: "corrupt",
    forget_manifest: "foreign",
    retag: "foreign",
    forge: "foreign",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_a_bad_checkpoint_is_named_and_the_previous_one_used(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    _, newest = fill(tmp_path, 5, 10)
    damage(newest)
    with pytest.warns(RuntimeWarning, match=f"refused: .*step-00000010: {DAMAGES[damage]}.*step-00000005"):
        found = checkpoints.latest(tmp_path)
    assert found is not None
    assert found.step == 5


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_nothing_usable_is_an_error_that_says_why(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    for path in fill(tmp_path, 5, 10):
        damage(path)
    with pytest.raises(ValueError, match=f"expected a complete checkpoint.*got none(.|\n)*{DAMAGES[damage]}"):
        checkpoints.latest(tmp_path)


def test_foreign_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"model\.pt: foreign, it has no manifest"):
        checkpoints.latest(tmp_path)
    fill(tmp_path, 1)
    assert checkpoints.latest(tmp_path).step == 1  # type: ignore[union-attr]


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    (path,) = fill(tmp_path, 5)
    flip(path)
    fill(tmp_path, 5)
    assert checkpoints.latest(tmp_path).step == 5  # type: ignore[union-attr]


@pytest.mark.parametrize("value", [Path("x"), object(), Trap()], ids=["path", "object", "trap"])
def test_only_tensors_and_plain_python_are_written(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError, match="expected tensors and plain Python"):
        checkpoints.save(tmp_path, 1, {"value": value})
    assert not list(tmp_path.iterdir())
