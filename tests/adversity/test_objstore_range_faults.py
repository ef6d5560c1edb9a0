"""Ranges under faults: the right bytes, whatever happens to one of the answers."""

from __future__ import annotations

import re
from typing import Any

import pytest

import natsproto
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from natsproto.testing import CUT, DROP, DUPLICATE, HOLD, FaultProxy
from natsproto.wire import Msg
from support.objects import CHUNK, impatient, pattern

DATA = pattern(40 * CHUNK + 7)
START, END = 10 * CHUNK + 5, 14 * CHUNK + 9


def other_payload(raw: bytes) -> bytes:
    """The same length, other bytes."""
    return raw[: -CHUNK - 2] + bytes(CHUNK) + b"\r\n" if len(raw) > CHUNK else raw


def other_place(raw: bytes) -> bytes:
    """The message of another sequence."""
    raw = other_payload(raw)
    return re.sub(
        rb"(Nats-Sequence: )(\d)", lambda found: found[1] + b"%d" % (9 - int(found[2])), raw, count=1
    )


def other_object(raw: bytes) -> bytes:
    """A chunk of another object."""
    return re.sub(
        rb"(Nats-Subject: \$O\.\S+\.C\.)(.)",
        lambda found: found[1] + (b"B" if found[2] == b"A" else b"A"),
        other_payload(raw),
        count=1,
    )


def shorter(raw: bytes) -> bytes:
    """The last byte is missing."""
    raw = re.sub(rb" (\d+)\r\n", lambda found: b" %d\r\n" % (int(found[1]) - 1), raw, count=1)
    return raw[:-3] + b"\r\n"


CHANGES = {
    "lost": DROP,
    "twice": DUPLICATE,
    "late": HOLD,
    "cut": CUT,
    "other place": other_place,
    "other object": other_object,
    "shorter": shorter,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("known", "n"), [(False, 0), (False, 1), (False, 4), (True, 0), (True, 4)])
async def test_one_answer_is_wrong(
    server: LocalServer, js: JetStreamContext, bucket_name: str, change: str, known: bool, n: int
) -> None:
    """The n-th that holds a chunk: the proof asks for the first and the last one, the range for five."""
    action: Any = CHANGES[change]
    plain = await js.create_object_store(bucket=bucket_name)
    await plain.put("a", DATA)
    seen = 0

    def hook(event: Any, raw: bytes) -> Any:
        nonlocal seen
        if isinstance(event, Msg) and len(event.payload) in (CHUNK, 7):
            seen += 1
            if seen == n + 1:
                return action(raw) if callable(action) else action
        return None

    async with FaultProxy(server.url) as proxy:
        async with natsproto.connect(proxy.url, reconnect_wait=0.02) as client:
            store = await impatient(client, bucket_name, 0.5)
            if known:
                assert await store.get_range("a", CHUNK, CHUNK + 1) == DATA[CHUNK : CHUNK + 1]
            proxy.to_client = hook
            assert await store.get_range("a", START, END) == DATA[START:END]
            assert seen > n
            proxy.to_client = None
            assert await store.get_range("a", START, END) == DATA[START:END]
        assert proxy.errors == []
    await js.delete_object_store(bucket_name)
