"""Iterables of the caller are iterated in its thread; generators of the loop are read in growing batches."""

from __future__ import annotations

import io
import threading
from array import array
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from natsproto.errors import ConnectionClosedError
from objstore.blocking.loop_thread import Link
from objstore.blocking.pieces import GATHER, Pulled, _take, by_caller, next_within
from objstore.sync import Client, ObjectStore


@pytest.fixture
def link(nc: Client) -> Link:
    return nc._link


@pytest.mark.parametrize(
    "data",
    [
        b"a",
        bytearray(b"a"),
        memoryview(b"a"),
        array("B", b"a"),
        [b"a"],
        (b"a",),
        Path("a"),
        io.BytesIO(),
        "a",
        7,
    ],
)
def test_what_is_no_iterator(data: Any) -> None:
    assert by_caller(data) is data


def test_iterated_in_the_thread_of_the_caller(store: ObjectStore) -> None:
    seen = set()

    def pieces() -> Iterator[bytes | bytearray]:
        buffer = bytearray(3)
        for number in range(300):
            seen.add(threading.current_thread())
            buffer[:] = b"%03d" % number
            yield buffer if number % 3 else bytes(buffer)

    store.put("a", pieces())
    assert store.get("a") == b"".join(b"%03d" % number for number in range(300))
    assert seen == {threading.current_thread()}


def test_blocking_calls_while_it_is_iterated(store: ObjectStore) -> None:
    store.put("a", b"1")
    store.put("b", (store.get(name) for name in ("a", "a")))
    assert store.get("b") == b"11"


def test_an_iterator_that_fails(store: ObjectStore) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"1"
        raise KeyError("the source's")

    with pytest.raises(KeyError, match="the source's"):
        store.put("a", pieces())
    assert not store.exists("a")
    with pytest.raises(TypeError, match="str"):
        store.put("a", (text for text in ("a", "b")))  # type: ignore[misc,arg-type]


def test_an_interruption_while_it_is_iterated(store: ObjectStore) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"1" * GATHER
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put("a", pieces())
    assert store.names() == []
    assert store.verify().ok


def test_batches_of_pieces() -> None:
    """A buffer that may be filled again ends one."""
    pieces = iter([b"1", b"2", bytearray(b"3"), b"4" * GATHER, b"5"])
    assert [len(batch) for batch in iter(lambda: _take(pieces), [])] == [3, 1, 1]


async def numbers(count: int, ended: list[str]) -> AsyncGenerator[int, None]:
    try:
        for number in range(count):
            yield number
        if count == 5:
            raise KeyError("after the fifth")
    finally:
        ended.append("ended")


def test_pulled(link: Link) -> None:
    ended: list[str] = []
    assert list(Pulled(link, numbers(100, ended))) == list(range(100))
    assert ended == ["ended"]


def test_errors_come_after_what_was_found(link: Link) -> None:
    found = Pulled(link, numbers(5, []))
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        next(found)
    assert list(found) == []


@pytest.mark.parametrize("close", [True, False])
def test_left_early(link: Link, close: bool) -> None:
    ended: list[str] = []
    found = Pulled(link, numbers(100, ended))
    assert next(found) == 0
    if close:
        found.close()
        assert list(found) == []
    del found
    link.call(link.client.flush)
    assert ended == ["ended"]


def test_the_connection_is_closed(nc: Client) -> None:
    """It ends an iteration that waits for its caller, and one that its caller waits for."""
    ended: list[str] = []
    paused = Pulled(nc._link, numbers(100, ended))
    assert next(paused) == 0
    entered = threading.Event()

    async def silent() -> AsyncGenerator[int, None]:
        try:
            entered.set()
            yield (await nc._link.client.connection.loop.create_future())
        finally:
            ended.append("ended")

    errors: list[BaseException] = []

    def wait() -> None:
        try:
            next(Pulled(nc._link, silent()))
        except ConnectionClosedError as exc:
            errors.append(exc)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert entered.wait(20)
    nc.close()
    waiting.join(20)
    assert len(errors) == 1
    assert ended == ["ended", "ended"]
    with pytest.raises(ConnectionClosedError):
        next(paused)


def test_the_next_one_within_a_time(link: Link) -> None:
    assert link.call(next_within, numbers(1, []), None) == [0]
    assert link.call(next_within, numbers(0, []), 1.0) == []

    async def wait() -> AsyncGenerator[int, None]:
        import asyncio

        await asyncio.get_running_loop().create_future()
        yield 1

    assert link.call(next_within, wait(), 0.01) is None

    async def fail() -> AsyncGenerator[int, None]:
        raise TimeoutError("its own")
        yield 1

    with pytest.raises(TimeoutError, match="its own"):
        link.call(next_within, fail(), 60.0)
