"""What is believed of the version that a server's INFO names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.server import server_version, told_in_clear
from objstore.format.buckets import FIELD_MINIMUM_VERSION
from objstore.manager import _answers_itself, _unknown_to
from support.memory_server import MemoryServer

ODD = ["", "\u00b2.\u00b3.1", "9" * 5000 + ".1.2", "2." + "9" * 5000, "2", "x.y", "\u0662.\u0663.1", None, 5]


def client(version: Any, *, in_clear: bool = False) -> Any:
    return SimpleNamespace(
        server_info={"version": version, "jetstream": True},
        connection=SimpleNamespace(session=SimpleNamespace(info_in_clear=in_clear)),
    )


def older(version: Any, *wanted: int, in_clear: bool = False) -> bool:
    bucket = Bucket.__new__(Bucket)
    bucket.client = client(version, in_clear=in_clear)
    return bucket._older_than(*wanted)


@pytest.mark.parametrize("version", ODD, ids=range(len(ODD)))
def test_what_is_no_version(version: Any) -> None:
    assert server_version(client(version)) is None
    assert not older(version, 2, 12)
    assert _unknown_to(None, dict.fromkeys(FIELD_MINIMUM_VERSION, "subject_transforms")) == []


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2.9.10", (2, 9, 10)), ("2.15.1", (2, 15, 1)), ("2.12.0-RC.1", (2, 12, 0)), ("2.11", (2, 11, 0))],
)
def test_versions(version: str, expected: tuple[int, int, int]) -> None:
    assert server_version(client(version)) == expected
    assert older(version, 2, 12) == (expected < (2, 12, 0))
    lacking = _unknown_to(expected, dict.fromkeys(FIELD_MINIMUM_VERSION, "subject_transforms"))
    assert ("allow_atomic" in lacking) == (expected < (2, 12, 0))
    assert ("metadata" in lacking) == (expected < (2, 10, 0))


def test_what_came_in_clear_is_not_believed() -> None:
    """Nothing is left out because of a high version, nor refused because of a low one."""
    assert older("99.0.0", 2, 12, in_clear=True)
    near: Any = SimpleNamespace(client=client("2.9.0", in_clear=True), prefix="$JS.API")
    assert not _answers_itself(near)
    near.client = client("2.9.0")
    assert _answers_itself(near)


async def test_a_version_that_was_told_in_clear_is_not_believed(server: MemoryServer) -> None:
    server.session.info_in_clear = True
    assert told_in_clear(server.client)
    await server.bucket()
    assert not (await bind(server.js, "b")).can_batch
