"""Calls from another event loop or thread than the client's: a clear error at once, whatever is called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest

import natsproto
from natsproto import Client
from natsproto.aio.operations import home_of
from natsproto.errors import ConnectionClosedError, LocalProtocolError
from natsproto.server import LocalServer
from objstore import ObjectMeta, ObjectStore

DATA = bytes(300_000)


class Home:
    """A client and what it has open, in the event loop of a thread of their own."""

    nc: Client
    store: ObjectStore

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = Thread(target=self.loop.run_forever)
        self.thread.start()
        self.here(self.open(url))

    def here(self, work: Any) -> Any:
        """Run a coroutine where the client belongs."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    async def open(self, url: str) -> None:
        self.nc = await natsproto.connect(url)
        self.js = self.nc.jetstream()
        self.bucket = "home-" + uuid4().hex[:10]
        self.store = await self.js.create_object_store(bucket=self.bucket)
        self.info = await self.store.put("a", DATA)
        self.sub = await self.nc.subscribe("x.>")
        self.full = await self.nc.subscribe("y")
        await self.nc.publish("y", b"1")
        await self.nc.flush()
        self.window = self.js.publish_window(f"$O.{self.bucket}.C.x", f"OBJ_{self.bucket}")
        self.reader = await self.store.open_reader("a")
        await self.reader.read(5)
        self.writer = self.store.open_writer("b")
        await self.writer.write(DATA)
        self.upload = await self.store.begin_upload("c")
        self.watcher = await self.store.watch()
        await self.watcher.caught_up
        self.pull = await self.js.pull_consumer(f"OBJ_{self.bucket}", config={"ack_policy": "explicit"})
        (self.msg,) = await self.pull.fetch(1, timeout=10)

    async def check(self) -> None:
        """Everything is as it was, and works."""
        assert (await self.nc.request(f"$JS.API.STREAM.INFO.OBJ_{self.bucket}")).data
        assert await self.store.get("a") == DATA
        assert await self.reader.read() == DATA[5:]
        await self.writer.write(b"x")
        assert (await self.writer.commit()).size == len(DATA) + 1
        assert (await anext(self.watcher)).name == "a"
        assert (await self.full.next_msg(10)).data == b"1"
        assert await self.store.names() == ["a", "b"]

    async def end(self) -> None:
        self.window.close()
        await self.watcher.stop()
        await self.reader.aclose()
        await self.writer.abort()
        await self.js.delete_object_store(self.bucket)
        await self.nc.close()

    def stop(self) -> None:
        try:
            self.here(self.end())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(20)
            self.loop.close()


@pytest.fixture(scope="module")
def home(new_server: LocalServer) -> Iterator[Home]:
    home = Home(new_server.url)
    yield home
    home.stop()


async def entered(manager: Any) -> None:
    async with manager:
        pass


async def first(items: AsyncIterator[Any]) -> Any:
    return await anext(aiter(items))


async def awaited(value: Awaitable[Any]) -> Any:
    return await value


Call = Callable[[Home], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "publish": lambda home: home.nc.publish("x", b"1"),
    "publish with headers": lambda home: home.nc.publish("x", b"1", headers={"a": "b"}),
    "publish a large one": lambda home: home.nc.publish("x", DATA),
    "request": lambda home: home.nc.request("x"),
    "subscribe": lambda home: home.nc.subscribe("z"),
    "flush": lambda home: home.nc.flush(),
    "drain": lambda home: home.nc.drain(),
    "close": lambda home: home.nc.close(),
    "next_msg": lambda home: home.sub.next_msg(5),
    "iterate": lambda home: first(home.sub),
    "iterate over what is there": lambda home: first(home.full),
    "unsubscribe": lambda home: home.sub.unsubscribe(),
    "drain a subscription": lambda home: home.sub.drain(),
    "js.publish": lambda home: home.js.publish("x", b"1"),
    "js.request": lambda home: home.js.request("INFO"),
    "js.stream_info": lambda home: home.js.stream_info("S"),
    "js.get_message": lambda home: home.js.get_message("S", seq=1),
    "js.direct_get": lambda home: home.js.direct_get("S", seq=1),
    "js.get_batch": lambda home: first(home.js.get_batch("S")),
    "js.publish_window": lambda home: home.window.publish(b"x"),
    "js.object_store": lambda home: home.js.object_store("b"),
    "js.create_object_store": lambda home: home.js.create_object_store(bucket="b"),
    "js.object_store_names": lambda home: home.js.object_store_names(),
    "fetch": lambda home: home.pull.fetch(1, timeout=1),
    "ack": lambda home: home.msg.ack(),
    "respond": lambda home: home.nc.publish(home.msg.subject),
    "put": lambda home: home.store.put("z", b"1"),
    "create": lambda home: home.store.create("z", b"1"),
    "put_file": lambda home: home.store.put_file("z", __file__),
    "delete": lambda home: home.store.delete("a"),
    "update_meta": lambda home: home.store.update_meta("a", ObjectMeta("a", "d")),
    "rename": lambda home: home.store.rename("a", "z"),
    "copy": lambda home: home.store.copy("a", "z"),
    "add_link": lambda home: home.store.add_link("l", home.info),
    "get": lambda home: home.store.get("a"),
    "get_range": lambda home: home.store.get_range("a", 0, 1),
    "get_file": lambda home: home.store.get_file("a", Path("nowhere")),
    "get_info": lambda home: home.store.get_info("a"),
    "exists": lambda home: home.store.exists("a"),
    "list": lambda home: home.store.list(),
    "iter": lambda home: first(home.store.iter()),
    "names": lambda home: home.store.names(),
    "list_dirs": lambda home: home.store.list_dirs(),
    "status": lambda home: home.store.status(),
    "seal": lambda home: home.store.seal(),
    "verify": lambda home: home.store.verify(),
    "gc": lambda home: home.store.gc(),
    "purge_deleted": lambda home: home.store.purge_deleted(),
    "open_reader": lambda home: entered(home.store.open_reader("a")),
    "reader.read": lambda home: home.reader.read(5),
    "reader.seek": lambda home: home.reader.seek(0),
    "reader.aclose": lambda home: home.reader.aclose(),
    "open_writer": lambda home: entered(home.store.open_writer("z")),
    "writer.write": lambda home: home.writer.write(b"x"),
    "writer.commit": lambda home: home.writer.commit(),
    "writer.abort": lambda home: home.writer.abort(),
    "upload.send": lambda home: home.upload.send(b"1"),
    "upload.abort": lambda home: home.upload.abort(),
    "watch": lambda home: first(home.store.watch()),
    "watch.caught_up": lambda home: awaited(home.watcher.caught_up),
    "watch.next": lambda home: first(home.watcher),
    "watch.stop": lambda home: home.watcher.stop(),
}


def refused(home: Home) -> list[str]:
    """Make every call in an event loop of this thread; returns those that were not refused at once."""
    wrong: list[str] = []

    async def call(name: str) -> None:
        try:
            async with asyncio.timeout(7):
                result = await CALLS[name](home)
        except ConnectionClosedError as exc:
            if "another event loop or thread" not in str(exc):
                wrong.append(f"{name}: {exc!r}")
        except BaseException as exc:
            wrong.append(f"{name}: {exc!r}")
        else:
            wrong.append(f"{name}: {result!r}")

    async def every() -> None:
        for name in CALLS:
            await call(name)

    asyncio.run(every())
    return wrong


def test_another_thread(home: Home) -> None:
    assert refused(home) == []
    home.here(home.check())


def test_the_same_thread_but_another_loop(new_server: LocalServer) -> None:
    """The client's loop has stopped; what it has open is still there."""
    loop = asyncio.new_event_loop()
    home = Home.__new__(Home)
    home.loop = loop
    loop.run_until_complete(home.open(new_server.url))
    try:
        assert refused(home) == []
        loop.run_until_complete(home.check())
    finally:
        loop.run_until_complete(home.end())
        loop.close()


def test_a_loop_that_is_closed(new_server: LocalServer) -> None:
    """``asyncio.run()`` has ended without a close: the next one is told, for every call."""

    async def begin() -> Client:
        return await natsproto.connect(new_server.url)

    async def go_on(nc: Client) -> None:
        for call in (nc.publish("x"), nc.request("x"), nc.flush(), nc.drain(), nc.close()):
            with pytest.raises(ConnectionClosedError, match="another event loop"):
                await call

    with asyncio.Runner() as runner:
        nc = runner.run(begin())
        asyncio.set_event_loop(None)
        other = asyncio.new_event_loop()
        other.run_until_complete(go_on(nc))
        other.close()
        runner.run(nc.close())


async def test_loops_that_do_not_tell_their_thread() -> None:
    """uvloop has no attribute for it: the loop that is running is asked for then."""

    class Silent:
        """A loop of another make."""

    here: Any = asyncio.get_running_loop()
    assert home_of(here) is here
    silent: Any = Silent()
    home = home_of(silent)
    assert home._thread_id is None
    home._loop = here
    assert home._thread_id == here._thread_id


async def test_no_check_comes_too_early(nc: Client) -> None:
    """In its own loop a client is as strict as ever."""
    with pytest.raises(LocalProtocolError):
        await nc.publish("a", "text")  # type: ignore[arg-type]
