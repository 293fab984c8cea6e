"""The code of the README runs as it stands, and says what the README says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_custom_sampler_of_the_readme_works() -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(compile(code[1], "README.md", "exec"), names)
    ess = names["samples"].effective_sample_size(names["generator"])
    assert ess.n == 10_000
    assert ess.value > 0.97


def test_every_command_of_the_readme_exists() -> None:
    from flows.cli import COMMANDS

    used = set(re.findall(r"^latflow ([a-z-]+)", README, re.MULTILINE))
    assert used == set(COMMANDS)
