"""Answers to metas that are doubled or forged: no data of anybody is lost by them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.errors import NatsError
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from objstore import ObjectMeta, ObjectStore
from support.frames import FORGED, Traffic, forged_frame
from support.objects import CHUNK, impatient, pattern

OLD, NEW = pattern(2 * CHUNK, 1), pattern(6 * CHUNK + 1, 2)
OTHERS = {f"other{n}": pattern(100 + n, n) for n in range(4)}


@pytest.fixture
async def proxy(server: LocalServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy
        assert proxy.errors == []


@pytest.fixture
async def faulty(proxy: FaultProxy, store: ObjectStore) -> AsyncIterator[ObjectStore]:
    for name, data in OTHERS.items():
        await store.put(name, data)
    await store.put("a", OLD)
    async with natsproto.connect(proxy.url, reconnect_wait=0.02) as client:
        yield (await impatient(client, store.bucket, 0.3)).with_options(retry_budget=3)
        proxy.to_server = proxy.to_client = None


CALLS: dict[str, Callable[[ObjectStore], Awaitable[Any]]] = {
    "put": lambda store: store.put("a", NEW),
    "small": lambda store: store.put("a", b"1"),
    "empty": lambda store: store.put("a", b""),
    "create": lambda store: store.create("new", NEW),
    "update_meta": lambda store: store.update_meta("a", ObjectMeta("a", "changed")),
    "delete": lambda store: store.delete("a"),
    "rename": lambda store: store.update_meta("a", ObjectMeta("new")),
}


STANDS = {
    "delete": {},
    "rename": {"new": OLD},
    "create": {"a": OLD, "new": NEW},
    "update_meta": {"a": OLD},
    "put": {"a": NEW},
    "small": {"a": b"1"},
    "empty": {"a": b""},
}
"""What the two names read as when the call has succeeded."""


@pytest.mark.parametrize("kind", FORGED)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("verb", CALLS)
async def test_forged(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, kind: str, first: bool, verb: str
) -> None:
    """It may fail the call; what is listed can be read, and an OK means what was asked for."""
    what = FORGED[kind](faulty)
    traffic = Traffic(proxy, faulty)

    def forge(event: Any, raw: bytes) -> list[bytes]:
        forged = forged_frame(event, what)
        return [forged, raw] if first else [raw, forged]

    traffic.on_ack(traffic.metas, None if verb == "rename" else 0, forge)
    failed = False
    async with asyncio.timeout(30):
        try:
            await CALLS[verb](faulty)
        except NatsError:
            failed = True
    assert traffic.hits
    report = await store.verify(deep=True)
    if verb == "rename" and not report.ok:  # told of steps that were not taken: somebody finishes it
        assert {problem.kind for problem in report.problems} == {"half-done rename"}
        await store.gc(older_than=timedelta(days=-1))
        report = await store.verify(deep=True)
    assert report.ok, report
    for name, data in OTHERS.items():
        assert await store.get(name) == data
    infos = await store.list()
    found = {info.name: await store.get(info.name) for info in infos if info.name not in OTHERS}
    assert found == STANDS[verb] or (failed and found == {"a": OLD})
