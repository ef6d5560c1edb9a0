"""The client: its properties, messages, and its end."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import natsproto
from natsproto.errors import ConfigError, ConnectionClosedError, NoRespondersError
from objstore.sync import Client, connect
from support.memory_server import MemoryServer


def test_properties(nc: Client, connected: tuple[Client, MemoryServer]) -> None:
    twin = connected[1].client
    assert (nc.is_connected, nc.is_closed, nc.state) == (True, False, "connected")
    for name in (
        "server_info",
        "connected_url",
        "servers",
        "discovered_servers",
        "max_payload",
        "client_id",
        "stats",
        "last_error",
    ):
        assert getattr(nc, name) == getattr(twin, name)
    assert repr(nc) == repr(twin)
    assert nc.new_inbox() != nc.new_inbox()


def test_messages(nc: Client, connected: tuple[Client, MemoryServer]) -> None:
    server = connected[1]
    nc.publish("x", b"1", reply="r", headers={"A": "b"})
    nc.flush(timeout=20)
    (pub,) = server.pubs
    assert (pub.subject, pub.payload, pub.reply) == (b"x", b"1", b"r")
    with pytest.raises(ValueError, match="white space"):
        nc.publish("a b", b"")
    with pytest.raises(ConfigError):
        nc.subscribe("x", max_msgs=-1)


def test_requests(nc: Client, connected: tuple[Client, MemoryServer]) -> None:
    server = connected[1]
    answers: list[tuple[bytes, bytes | None]] = [(b"answer", None), (b"", b"NATS/1.0 503\r\n\r\n")]

    def answer(pub: Any) -> None:
        server.connection.loop.call_soon(server.reply, pub, *answers.pop(0))

    server.session.on_pub = answer
    msg = nc.request("x", b"1", timeout=20, headers={"A": "b"})
    assert msg.data == b"answer"
    with pytest.raises(NoRespondersError):
        nc.request("x")


def test_another_server(nc: Client, connected: tuple[Client, MemoryServer]) -> None:
    assert 0 <= nc.rtt(timeout=20) < 20
    nc.set_server_pool(["nats://other:1"])
    assert nc.servers == ["nats://other:1"]
    with pytest.raises(ConfigError):
        nc.set_server_pool([])
    with pytest.raises(ConfigError, match="reconnect=False"):
        nc.force_reconnect()
    nc.close()
    with pytest.raises(ConnectionClosedError):
        nc.set_server_pool("nats://other:1")


def test_jetstream(nc: Client) -> None:
    js = nc.jetstream(domain="hub", timeout=7)
    assert (js.domain, js.prefix, js.timeout, js.client) == ("hub", "$JS.hub.API", 7, nc)
    assert nc.object_store("b", create=True).bucket == "b"
    assert nc.object_store("b").bucket == "b"


def test_drained(nc: Client) -> None:
    with nc as same:
        assert same is nc
        nc.drain()
    assert nc.is_closed


def test_the_options_are_those_of_the_asyncio_client() -> None:
    assert inspect.signature(connect) == inspect.signature(natsproto.connect)
    assert (connect.__name__, connect.__module__) == ("connect", "objstore.blocking.client")
    assert "with objstore.sync.connect(url) as nc" in (connect.__doc__ or "")
    with pytest.raises(ConfigError):
        connect("nats://a", retry_budget=-1)
    wrong: Any = {"user_name": "me"}
    with pytest.raises(TypeError):
        connect(**wrong)
