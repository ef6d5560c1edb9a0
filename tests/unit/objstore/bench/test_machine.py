"""The machine: what a result says about where it was measured."""

from __future__ import annotations

import platform
from pathlib import Path

from objstore.bench import machine


def test_everything_is_said() -> None:
    found = machine.describe()
    assert set(found) == {"cpu", "cores", "memory_gib", "kernel", "python", "date"}
    assert found["python"] == f"{platform.python_implementation()} {platform.python_version()}"
    assert str(found["date"]).endswith("Z")


def test_a_field_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "info"
    path.write_text("model\t: x\nmodel name\t: fast: very\nmodel name\t: other\n")
    assert machine._field(str(path), "model name") == "fast: very"
    assert machine._field(str(path), "nothing") == ""
    assert machine._field(str(tmp_path / "missing"), "model name") == ""
