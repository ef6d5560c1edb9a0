"""A publish window over a scripted server, and the answers to what it sends."""

from __future__ import annotations

from typing import Any

from natsproto.jetstream.publisher import PublishWindow
from support.fake_session import FakeServer


def make(server: FakeServer, **options: Any) -> PublishWindow:
    return PublishWindow(server.client, b"s.a", "S", **options)


def ack(server: FakeServer, index: int, seq: int, **extra: Any) -> None:
    server.reply(server.pubs[index], {"stream": "S", "seq": seq, **extra})


def refuse(server: FakeServer, index: int, err_code: int, code: int = 503) -> None:
    error = {"code": code, "err_code": err_code, "description": "no"}
    server.reply(server.pubs[index], {"error": error, "stream": "S", "seq": 0})
