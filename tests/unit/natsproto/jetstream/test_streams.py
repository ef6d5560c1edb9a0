"""Streams against scripted answers: listings, and fields that a server drops or refuses."""

from __future__ import annotations

from typing import Any

import pytest

from natsproto.errors import UnsupportedFeatureError
from natsproto.jetstream.api.errors import StreamConfigError
from natsproto.jetstream.api.models import StreamConfig
from natsproto.jetstream.context import JetStreamContext
from support.api_answers import answering, body
from support.fake_session import FakeServer, Pub


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=0.5)


async def test_pages_of_streams(server: FakeServer, js: JetStreamContext) -> None:
    def item(n: int) -> dict[str, Any]:
        return {"config": {"name": f"S{n}"}, "state": {"messages": n}, "created": "2024-01-01T00:00:00Z"}

    answering(server, {"total": 3, "streams": [item(0), item(1)]}, {"total": 3, "streams": [item(2)]})
    assert [(info.config.name, info.messages) for info in await js.streams()] == [
        ("S0", 0),
        ("S1", 1),
        ("S2", 2),
    ]


async def test_pages_of_subjects(server: FakeServer, js: JetStreamContext) -> None:
    def page(subjects: dict[str, int] | None) -> dict[str, Any]:
        return {"config": {"name": "S"}, "total": len(subjects or ()), "state": {"subjects": subjects}}

    answering(server, {**page({"a": 1, "b": 2}), "total": 3}, {**page({"c": 3}), "total": 3})
    assert await js.stream_subjects("S", "x.>") == {"a": 1, "b": 2, "c": 3}
    assert [body(pub)["offset"] for pub in server.pubs] == [0, 2]
    answering(server, page(None))
    assert await js.stream_subjects("S") == {}


@pytest.mark.parametrize(
    ("count", "missing"), [(20, [19]), (20, [3]), (300, [255, 256]), (300, [299]), (257, [256])]
)
async def test_streams_without_an_answer(
    server: FakeServer, js: JetStreamContext, count: int, missing: list[int]
) -> None:
    """In a cluster they take places on a page, and are told apart."""

    def on_pub(pub: Pub) -> None:
        offset = body(pub)["offset"]
        names = range(offset, min(offset + 256, count))
        answer = {"config": {}, "state": {}, "created": "2024-01-01T00:00:00Z"}
        page = [{**answer, "config": {"name": f"S{n:03}"}} for n in names if n not in missing]
        told = {"streams": page, "missing": [[], {}, *(f"S{n:03}" for n in names if n in missing)]}
        server.reply(pub, {"total": count, "offset": offset, "limit": 256, **told})

    server.session.on_pub = on_pub
    found = [info.config.name for info in await js.streams()]
    assert found == [f"S{n:03}" for n in range(count) if n not in missing]


@pytest.mark.parametrize("subjects_filter", [">", "x.>"])
async def test_subjects_that_are_no_text(
    server: FakeServer, js: JetStreamContext, subjects_filter: str
) -> None:
    """Go writes each such byte alike: several subjects become one entry."""
    state = {"subjects": {"x.a": 1, "x.\ufffd": 1}, "num_subjects": 42}
    page = {"config": {"name": "S"}, "total": 42, "offset": 0, "limit": 100_000, "state": state}
    answering(server, page)
    assert await js.stream_subjects("S", subjects_filter) == state["subjects"]
    assert len(server.pubs) == 1


async def test_fields_an_older_server_drops(server: FakeServer, js: JetStreamContext) -> None:
    """A mapping has what its writer wrote: only a configuration of ours is compared with the answer."""
    answer = {"config": {"name": "S"}, "state": {}, "created": "2024-01-01T00:00:00Z"}
    answering(server, *[answer] * 3)
    wanted = StreamConfig(name="S", allow_batched=True)
    for call in (js.create_stream, js.update_stream):
        with pytest.raises(UnsupportedFeatureError, match=r"allow_batched needs nats-server 2\.14\.0"):
            await call(wanted)
    assert (await js.create_stream(wanted.to_json())).config.allow_batched is None


async def test_fields_an_older_server_refuses(server: FakeServer, js: JetStreamContext) -> None:
    unknown = {"code": 400, "err_code": 10025, "description": 'invalid JSON: unknown field "allow_batched"'}
    answering(server, *[{"error": unknown}] * 2, {"error": {**unknown, "description": "invalid JSON"}})
    wanted = StreamConfig(name="S", allow_batched=True)
    with pytest.raises(UnsupportedFeatureError, match=r"allow_batched needs nats-server 2\.14\.0"):
        await js.create_stream(wanted)
    with pytest.raises(StreamConfigError, match="unknown field"):
        await js.create_stream(wanted.to_json())
    with pytest.raises(StreamConfigError, match="invalid JSON"):
        await js.create_stream(wanted)
