"""When a batch that is silent is given up: not while something large is still on its way."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from natsproto.errors import RequestTimeoutError
from objstore.read import window as _window
from objstore.read.window import Window


async def window(*, idle: bool, scheme: str) -> tuple[Window, Any, list[float]]:
    """One that waits, its session, and how long it waited each time."""
    session = SimpleNamespace(
        reads=7, parser=SimpleNamespace(idle=idle), server=SimpleNamespace(scheme=scheme)
    )
    connection = SimpleNamespace(session=session, probe=lambda: None)
    bucket = SimpleNamespace(connection=connection)
    waits: list[float] = []
    loop = SimpleNamespace(
        create_future=asyncio.get_running_loop().create_future,
        call_later=lambda seconds, callback: waits.append(seconds),
    )
    feed: Any = SimpleNamespace(loop=loop, bucket=bucket, bytes_of=lambda batch: 1000 * batch)
    found = Window(feed, 1, 4)
    found._watch(_window.SILENCE)
    return found, session, waits


@pytest.mark.parametrize(
    ("idle", "scheme", "bytes_came", "goes_on"),
    [
        (False, "nats", True, True),  # half a chunk
        (False, "nats", False, False),  # half a chunk, and no more of it
        (True, "nats", True, False),  # answers to others
        (True, "ws", True, True),  # perhaps half a frame of the layer below
        (True, "wss", False, False),
    ],
)
async def test_silence(idle: bool, scheme: str, bytes_came: bool, goes_on: bool) -> None:
    silent, session, waits = await window(idle=idle, scheme=scheme)
    session.reads += bytes_came
    silent._check_progress()
    if goes_on:
        assert waits == [_window.SILENCE, _window.PROGRESS - _window.SILENCE]
        session.reads += 1
        silent._check_progress()  # but not for ever
    assert isinstance(silent._ended.exception(), RequestTimeoutError)


async def test_no_session() -> None:
    silent, _, _ = await window(idle=False, scheme="nats")
    silent._feed.bucket.connection.session = None
    silent._check_progress()
    assert isinstance(silent._ended.exception(), RequestTimeoutError)


async def test_messages_go_on() -> None:
    going, _, waits = await window(idle=True, scheme="nats")
    going.seen = 1
    going._check_progress()
    assert not going._ended.done()
    assert waits == [_window.SILENCE, _window.SILENCE]
