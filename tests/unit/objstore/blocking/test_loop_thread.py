"""The thread: when it runs, who may not wait for it, and what becomes of calls and connections at its end."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Generator
from contextvars import Context
from typing import Any

import pytest

from natsproto.errors import ConnectionClosedError, NoServersError
from objstore.blocking import loop_thread as module
from objstore.blocking.call import Call
from objstore.blocking.loop_thread import Link, LoopThread
from objstore.sync import Client, ObjectStore, connect
from support.blocking import InMemory, just_made, memory_client, output
from support.waits import eventually_here


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "objstore-sync"]


def test_all_connections_share_one() -> None:
    assert running() == []
    one, _ = memory_client()
    two, _ = memory_client()
    assert len(running()) == 1
    assert running()[0].daemon
    one.close()
    assert len(running()) == 1
    two.close()
    assert running() == []
    two.close()
    three, _ = memory_client()
    assert len(running()) == 1
    three.close()


def test_a_connection_that_fails() -> None:
    with pytest.raises(NoServersError):
        connect("nats://127.0.0.1:1", connect_timeout=1)
    assert running() == []


def test_objects_are_copied_between_connections(store: ObjectStore) -> None:
    """Of two servers, too."""
    store.put("a", b"1", "description")
    with memory_client()[0] as other:
        there = other.object_store("there", create=True)
        assert store.copy("a", "b", to=there).description == "description"
        assert there.get("b") == b"1"


def test_a_callback_must_not_wait_for_itself(store: ObjectStore) -> None:
    def progress(done: int, total: int | None) -> None:
        store.get("a")

    with pytest.raises(RuntimeError, match=r"a callback .* asyncio API \(natsproto.connect\)"):
        store.put("a", b"1", progress=progress)
    assert store.names() == []


class TestLoops:
    """A thread in which a loop runs is not blocked, unless somebody sits in front of it."""

    def test_refused(self, nc: Client) -> None:
        async def main() -> None:
            for call in (nc.flush, lambda: connect("nats://127.0.0.1:1"), nc.close):
                with pytest.raises(
                    RuntimeError, match=r"use the asyncio API \(natsproto.connect, then await\)"
                ):
                    call()
            await asyncio.to_thread(nc.flush)

        asyncio.run(main())
        nc.flush()

    def test_interactive(self, nc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "ps1", "In : ", raising=False)

        async def main() -> str:
            nc.flush()
            return nc.state

        assert asyncio.run(main()) == "connected"


class TestEnd:
    def test_a_closed_connection(self, nc: Client, store: ObjectStore) -> None:
        nc.close()
        nc.close()
        nc.drain()
        assert (nc.is_closed, nc.is_connected, nc.state) == (True, False, "closed")
        with pytest.raises(ConnectionClosedError):
            store.get("a")
        with memory_client()[0], pytest.raises(ConnectionClosedError):
            store.get("a")

    def test_calls_under_way(self, nc: Client) -> None:
        """They end with an error, however they wait."""
        errors: list[BaseException] = []
        subscription = nc.subscribe("x")

        def wait() -> None:
            try:
                nc._link.call(asyncio.sleep, 3600)
            except ConnectionClosedError as exc:
                errors.append(exc)

        def read() -> None:
            errors.extend([ConnectionClosedError("ended")] if list(subscription) == [] else [])

        threads = [threading.Thread(target=each) for each in (wait, read)]
        for thread in threads:
            thread.start()
        eventually_here(lambda: len(nc._link.thread._calls) == 2)
        nc.close()
        for thread in threads:
            thread.join(20)
        assert len(errors) == 2

    def test_calls_that_never_begin(self) -> None:
        """The loop ends before it gets to them."""
        thread = LoopThread()

        async def work() -> None:
            raise AssertionError("unreachable")

        call = Call(thread._loop, work, thread._calls, thread._is_over)
        thread._calls.add(call)
        thread.stop()
        assert isinstance(call._error, ConnectionClosedError)
        assert thread._calls == set()
        with pytest.raises(ConnectionClosedError):
            thread.call(work)
        assert not thread.later(work)
        assert thread._calls == set()
        thread.stop()

    def test_a_call_that_begins_while_the_rest_ends(self) -> None:
        """Nobody would run its task any more, or end it."""
        thread = LoopThread()
        entered, calls = threading.Event(), []

        async def work() -> None:
            raise AssertionError("unreachable")

        async def last() -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:  # the runner cancels what is left, and runs the loop meanwhile
                calls.append(Call(thread._loop, work, thread._calls, thread._is_over))
                calls[0].start(Context())
                await asyncio.sleep(0)

        assert thread.later(last)
        assert entered.wait(20)
        thread.stop()
        assert isinstance(calls[0]._error, ConnectionClosedError)

    def test_connections_left_open(self) -> None:
        """Also one that nobody got, because the caller was interrupted just when it was made."""
        thread = LoopThread()
        options: Any = InMemory()
        client = thread.call(thread.open, options)
        thread.stop()
        assert client.is_closed

    def test_interrupted_just_when_it_was_made(self, nc: Client) -> None:
        """Nobody has got it, and the thread lives on for others."""
        options: Any = Interrupted()
        with pytest.raises(KeyboardInterrupt):
            Link(options)
        eventually_here(lambda: options.server.client.is_closed)
        assert list(nc._link.thread.users) == [nc._link]
        assert not nc.is_closed

    def test_a_dropped_connection(self, nc: Client) -> None:
        """What was made with it keeps it; without anything it is closed."""
        dropped, server = memory_client()
        store = dropped.jetstream().create_object_store("b")
        del dropped
        store.put("a", b"1")
        with pytest.warns(ResourceWarning, match="was dropped: use it with 'with', or close"):
            del store
        eventually_here(lambda: server.client.is_closed)

    def test_the_thread_ended_by_itself(self) -> None:
        client, _ = memory_client()
        thread = client._link.thread
        thread.stop()
        other, _ = memory_client()
        assert other._link.thread is not thread
        other.close()
        client.close()


def test_disowned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a forked child has of its parent's connection; here, without a fork."""
    client, server = memory_client()
    store = client.object_store("b", create=True)
    thread = client._link.thread
    monkeypatch.setattr(module, "_current", thread)
    monkeypatch.setattr(module, "_all", {thread})
    monkeypatch.setattr(thread, "_selector", Selector())
    module._after_fork()
    assert module._current is None
    assert (client.is_closed, client.is_connected) == (True, False)
    with pytest.raises(ConnectionClosedError, match="before this process was forked"):
        store.get("a")
    client.close()
    assert not thread.later(lambda: asyncio.sleep(0))
    thread.stop()
    assert server.client.is_closed


def test_disowned_when_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = memory_client()
    client.close()
    thread = client._link.thread
    monkeypatch.setattr(module, "_all", {thread})
    module._after_fork()
    with pytest.raises(ConnectionClosedError, match="before this process was forked"):
        client.jetstream().account_info()


class Interrupted(InMemory):
    """The caller is interrupted, and the connection is made nevertheless."""

    def __await__(self) -> Generator[Any, None, Any]:
        yield from just_made().__await__()
        return (yield from super().__await__())


class Selector:
    """One without a descriptor of its own."""

    def get_map(self) -> dict[str, Any]:
        return {}


def test_the_end_of_the_interpreter() -> None:
    """Connections that nobody has closed are closed."""
    source = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from support.blocking import memory_client\n"
        "client, server = memory_client()\n"
        "store = client.object_store('b', create=True)\n"
        "import atexit; atexit.register(lambda: print(store.put('a', b'1').size))\n"
        "from objstore.blocking import loop_thread\n"
        "client._link.thread.__class__.stop = (lambda stop: lambda self, *limit: (stop(self, *limit), "
        "print(self.ended)))(client._link.thread.__class__.stop)\n"
    )
    assert output(source).split() == ["1", "True"]
