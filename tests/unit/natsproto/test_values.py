"""Values on their way out: plain text and bytes, rounded numbers."""

import re
from pathlib import Path

import pytest

import natsproto
from natsproto import _values
from support.hostile import HostileBytes, HostileStr, enum_of


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (14.999999, "15"),
        (4.9987654321, "5"),
        (0.1 + 0.2, "0.3"),
        (20.0, "20"),
        (100, "100"),
        (3600.0, "3600"),
        (2.5, "2.5"),
        (0.25, "0.25"),
        (0.05, "0.05"),
        (0.0012345, "0.0012"),
        (0, "0"),
        (0.0, "0"),
        (None, "unbounded"),
    ],
)
def test_seconds(value: float | None, shown: str) -> None:
    assert _values.seconds(value) == shown


def test_plain() -> None:
    for make in (HostileStr, enum_of):
        assert (type(_values.text(make("value"))), _values.text(make("value"))) == (str, "value")
    raw = _values.raw(HostileBytes(b"value"))
    assert (type(raw), raw) == (bytes, b"value")
    assert _values.raw(raw) is raw


UNROUNDED = re.compile(r"\{(?!seconds\()([^{}:]*|[^{}]*g)\} s\b")


def test_every_message_rounds_its_seconds() -> None:
    """No text names a time as it comes out of a subtraction, nor 120 s as ``1.2e+02``."""
    root = Path(natsproto.__file__).parents[1]
    found = {
        path.name: UNROUNDED.findall(path.read_text())
        for package in ("natsproto", "objstore")
        for path in (root / package).rglob("*.py")
    }
    assert not [name for name, shown in found.items() if shown]
    text = "within {limit:.2g} s, {x} s, {y:.1f} s, {seconds(z)} s, {a} say"
    assert UNROUNDED.findall(text) == ["limit:.2g", "x"]
