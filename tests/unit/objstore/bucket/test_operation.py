"""Verbs as operations of their client, and the callbacks that they may be given."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from natsproto.errors import ConnectionClosedError
from objstore.bucket.operation import check_callback, gives_awaitables, operation
from support.fake_session import turns
from support.memory_server import MemoryServer


class Verbs:
    def __init__(self, server: MemoryServer) -> None:
        self.client = server.client
        self.cleaned = False

    @operation
    async def add(self, one: int, *, other: int = 2) -> int:
        """Add them."""
        return one + other

    @operation
    async def endless(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.cleaned = True


async def test_a_verb_is_what_it_was(server: MemoryServer) -> None:
    verbs = Verbs(server)
    assert await verbs.add(1, other=3) == 4
    assert (Verbs.add.__name__, Verbs.add.__doc__) == ("add", "Add them.")


async def test_closing_lets_it_clean_up(server: MemoryServer) -> None:
    verbs = Verbs(server)
    task = asyncio.ensure_future(verbs.endless())
    await turns()
    await server.client.close()
    assert verbs.cleaned
    with pytest.raises(ConnectionClosedError):
        await task
    with pytest.raises(ConnectionClosedError):
        await verbs.add(1)


async def test_another_loop_is_refused_at_once(server: MemoryServer) -> None:
    verbs = Verbs(server)

    async def work() -> None:
        with pytest.raises(ConnectionClosedError, match="another event loop"):
            await verbs.add(1)

    await asyncio.to_thread(lambda: asyncio.run(work()))


class Plain:
    def __call__(self) -> None:
        pass


class Later:
    async def __call__(self) -> None:
        pass


async def later(*args: object) -> None:
    pass


async def stream() -> Any:
    yield 1


def wrapped(*args: object) -> None:
    later(*args).close()


functools.update_wrapper(wrapped, later)


@pytest.mark.parametrize("function", [None, print, len, lambda done: None, Plain(), [].append, int])
def test_callbacks(function: Any) -> None:
    check_callback("progress", function)
    assert not gives_awaitables(function)


@pytest.mark.parametrize(
    "function",
    [later, Later(), Later().__call__, functools.partial(later, 1), functools.partial(Later()), wrapped],
)
def test_what_would_never_run(function: Any) -> None:
    assert gives_awaitables(function)
    with pytest.raises(TypeError, match="progress must be a plain function"):
        check_callback("progress", function)


@pytest.mark.parametrize("function", [7, "text", stream()])
def test_what_is_no_function(function: Any) -> None:
    with pytest.raises(TypeError, match="must be a function, not"):
        check_callback("progress", function)
    with pytest.raises(TypeError):
        check_callback("progress", stream)
