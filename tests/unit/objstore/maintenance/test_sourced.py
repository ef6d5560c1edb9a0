"""What the sources of a bucket still have to send: known only where each was heard, and has nothing more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from natsproto.jetstream.api.models import StoredMessage, StreamInfo
from objstore.bucket.bucket import Bucket
from objstore.bucket.clock import FIRST, server_time
from objstore.maintenance.sourced import LOOKS, arrived_until, is_sourced
from support.memory_server import MemoryServer

SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objstore.maintenance.sourced.PAUSE", 0.0)


async def looked(
    server: MemoryServer, bucket: Bucket, sources: Any, configured: int = 1
) -> tuple[Any, StreamInfo]:
    server.stream().config["sources"] = [{"name": f"S{number}"} for number in range(configured)]
    server.stream().sources = sources
    stream = await server.js.stream_info(bucket.stream)
    server.verbs()
    return await arrived_until(bucket, stream), stream


async def test_all_that_was_there_has_arrived(server: MemoryServer, bucket: Bucket) -> None:
    sources = [{"lag": 0, "active": 5 * SECOND}, {"lag": 0, "active": 60 * SECOND}]
    until, stream = await looked(server, bucket, sources, 2)
    assert timedelta(seconds=60) <= server_time(stream) - until <= timedelta(seconds=60.001)
    assert server.verbs() == [], "one look was enough"


@pytest.mark.parametrize(
    "sources",
    [
        None,
        [],
        [{"lag": 0, "active": 1}],
        [{"lag": 0, "active": 1}, {"lag": 1, "active": 1}],
        [{"lag": 0, "active": 1}, {"lag": 0, "active": -1}],
        [{"lag": 0, "active": 1}, {"lag": 0, "active": 1 << 63}],
        [{"lag": 0, "active": 1}, {"lag": 0, "active": None}],
        [{"lag": 0, "active": 1}, {"lag": False, "active": 1}],
        [{"lag": 0, "active": 1}, {"active": 1}],
        [{"lag": 0, "active": 1}, {}],
    ],
)
async def test_it_is_not_known(server: MemoryServer, bucket: Bucket, sources: Any) -> None:
    until, _ = await looked(server, bucket, sources, 2)
    assert until is None
    assert server.verbs() == ["STREAM.INFO"] * (LOOKS - 1)


async def test_a_busy_source(server: MemoryServer, bucket: Bucket) -> None:
    """It has nothing under way now and then."""

    def hook(verb: str, body: dict[str, Any]) -> None:
        server.stream().sources = [{"lag": 0, "active": 0}]

    server.hook = hook
    server.stream().config["sources"] = [{"name": "S"}]
    stream = StreamInfo.from_json({**server.stream().info({}), "sources": [{"lag": 7, "active": 0}]})
    server.verbs()
    until = await arrived_until(bucket, stream)
    assert until is not None
    assert until > server_time(stream) - timedelta(seconds=1)
    assert server.verbs() == ["STREAM.INFO"]


async def test_nobody_was_heard_for_ages(server: MemoryServer, bucket: Bucket) -> None:
    until, _ = await looked(server, bucket, [{"lag": 0, "active": (1 << 62) - 1}])
    assert until == FIRST


@pytest.mark.parametrize(
    ("header", "sourced"),
    [
        (None, False),
        (b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n", False),
        (b"NATS/1.0\r\nNats-Stream-Source: OBJ_media 7 $O.media.> $O.agg.>\r\n\r\n", True),
    ],
)
def test_which_messages_are_of_a_source(header: bytes | None, sourced: bool) -> None:
    assert is_sourced(StoredMessage("s", 1, b"", header, FIRST)) is sourced
