"""What peers and a server's operator choose reaches the log of a client: escaped, on one line each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

import natsproto
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from support.frames import send_raw
from support.objects import forge
from support.waits import eventually

EVIL = "\x1b]0;owned\x07\r\n2026-01-01 ERROR forged \u202e\u2028\x9b2J"
TOKEN = "evil\x1b]0;owned\x07\u202e\u2028\x9b2J"
"""The same, as far as it can be a part of a subject, or a server's name."""

MARKS = "evil\u202e\u2028\x9b2J"
"""What a client library takes for a subject."""

KINDS = [
    "connected to",
    "this user may not publish to",
    "a meta message on",
    "put: chunks",
    "lost the connection to",
    "reconnected to",
]

PEER = {"user": "peer", "pass": "p"}

CONFIG = """server_name: "%s"
accounts { A { jetstream: enabled, users: [
  { user: peer, password: p }
  { user: victim, password: p, permissions: { publish: { deny: "answers.>" } } }
] } }"""


@pytest.fixture(scope="module", params=["new", "old"])
def named(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    binary = request.getfixturevalue(f"{request.param}_server").binary.path
    with LocalServer(binary=binary, config=CONFIG % TOKEN) as server:
        yield server


async def test_all_of_them_are_escaped(named: LocalServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        asyncio.timeout(60),
        FaultProxy(named.url) as proxy,
        natsproto.connect(named.url, user="peer", password="p") as peer,
        natsproto.connect(proxy.url, user="victim", password="p", reconnect_wait=0.01) as victim,
    ):
        theirs = await peer.jetstream().create_object_store(bucket="b")
        store = await victim.jetstream().object_store("b")

        # The reply subject of a request, which may not be published to.
        served = await victim.subscribe("work")
        await victim.flush()
        await peer.publish("work", reply=f"answers.{MARKS}")
        await (await served.next_msg(timeout=20)).respond(b"x")
        await victim.flush()

        # A meta on a subject of its writer's choice.
        assert await send_raw(named.url, f"PUB $O.b.M.{TOKEN} 2\r\n{{}}\r\n".encode(), **PEER) == []
        await store.list()

        # Chunks of a name, and under a nuid, of others.
        await theirs.put(EVIL, b"1")
        await forge(theirs, EVIL, nuid=EVIL)
        await store.put(EVIL, b"2")

        # The name that the server has been given.
        proxy.cut()
        await eventually(lambda: victim.stats.reconnects == 1)
    lines = [logging.Formatter("%(message)s").format(record) for record in caplog.records]
    assert [line for line in lines if not line.isprintable()] == []
    for begin in KINDS:
        assert [line for line in lines if line.startswith(begin) and "2028" in line], begin
