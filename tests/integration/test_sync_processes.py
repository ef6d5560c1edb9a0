"""The blocking API at the edges of a process: its end, Ctrl-C, fork, interactive sessions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

import natsproto
from natsproto.server import LocalServer
from objstore import ObjectStore
from support.blocking import SECONDS, output, program

BEGIN = """\
import atexit, os, signal, sys, threading, time
import objstore.sync
signal.signal(signal.SIGINT, signal.default_int_handler); url, bucket = sys.argv[1:3]
nc = objstore.sync.connect(url)
store = nc.object_store(bucket)
"""

# A job in the background inherits that the interrupt is ignored.

INTERRUPTED = """\
def interrupt():
    while not nc._link.thread._calls: time.sleep(0.001)
    print("now")
threading.Thread(target=interrupt).start()
"""
"""Tells of the next call when it is under way."""


@pytest.fixture
async def store(new_server: LocalServer, bucket_name: str) -> AsyncIterator[ObjectStore]:
    """A bucket on one server: none of this depends on its version."""
    async with natsproto.connect(new_server.url) as nc:
        store = await nc.jetstream().create_object_store(bucket_name)
        yield store
        await store.js.delete_object_store(bucket_name)


class TestExit:
    @pytest.mark.parametrize(
        "rest",
        [
            "",  # simply the end
            "sub = nc.subscribe('x'); watcher = store.watch().start(); reader = store.open_reader('a')",
            "writer = store.open_writer('b'); writer.write(b'1')",
            "sys.exit()",
            "threading.Thread(target=lambda: store.get('a')).start()",
            "for info in store.watch():\n    break\nitems = store.iter(); next(items)",
        ],
        ids=["nothing", "open", "writing", "exit", "thread", "iterators"],
    )
    async def test_quietly(self, store: ObjectStore, rest: str) -> None:
        """Whatever is open: no hang, no message; queued messages are sent, and nothing is left behind."""
        await store.put("a", b"1" * 300_000)
        ours = await store.client.subscribe("last.words")
        await store.client.flush()
        source = BEGIN + "atexit.register(lambda: nc.publish('last.words', b'bye'))\n" + rest
        assert output(source, store.client.connected_url or "", store.bucket) == ""
        assert (await ours.next_msg(timeout=20)).data == b"bye"
        assert await store.names() == ["a"]
        assert (await store.verify()).ok

    async def test_a_daemon_thread_that_waits(self, store: ObjectStore) -> None:
        source = BEGIN + (
            "started = threading.Event()\n"
            "def wait():\n"
            "    subscription = nc.subscribe('x')\n"
            "    started.set()\n"
            "    for msg in subscription: pass\n"
            "threading.Thread(target=wait, daemon=True).start()\n"
            "started.wait()\n"
        )
        assert output(source, store.client.connected_url or "", store.bucket) == ""

    async def test_an_error(self, store: ObjectStore) -> None:
        """It ends the program as ever; its traceback begins with the caller's line."""
        done = program(BEGIN + "store.get('nowhere')\n", store.client.connected_url or "", store.bucket)
        out, err = done.communicate(timeout=SECONDS)
        assert (done.returncode, out) == (1, "")
        lines = err.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[1] == '  File "<string>", line 6, in <module>'
        assert lines[-1].startswith("objstore.errors.ObjectNotFoundError: ")


class TestInterrupted:
    """Ctrl-C during a call: what it began is removed, then ``KeyboardInterrupt`` is raised."""

    async def run(self, store: ObjectStore, rest: str, *, times: int = 1) -> str:
        child = program(BEGIN + rest, store.client.connected_url or "", store.bucket)
        assert child.stdout is not None
        for _ in range(times):
            assert child.stdout.readline() == "now\n"
            child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=SECONDS)
        assert err == "", err
        assert child.returncode == 0
        return out

    async def test_while_it_waits(self, store: ObjectStore) -> None:
        out = await self.run(
            store,
            "subscription = nc.subscribe('x')\n"
            f"{INTERRUPTED}"
            "try:\n"
            "    subscription.next_msg()\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted', store.names())\n",
        )
        assert out == "interrupted []\n"

    async def test_a_put(self, store: ObjectStore) -> None:
        """Its chunks are removed before the exception is raised."""
        out = await self.run(
            store,
            "def progress(done, total):\n"
            "    if not told: told.append(print('now'))\n"
            "told = []\n"
            "async def endless():\n"
            "    while True: yield b'1' * 100_000\n"
            "try:\n"
            "    store.put('a', endless(), progress=progress)\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted', store.names(), store.status().size)\n",
        )
        assert out == "interrupted [] 0\n"

    async def test_twice(self, store: ObjectStore) -> None:
        """The second time, the clean-up is not waited for."""
        out = await self.run(
            store,
            "import asyncio\n"
            "async def stubborn():\n"
            "    print('now')\n"
            "    try:\n"
            "        await asyncio.sleep(60)\n"
            "    finally:\n"
            "        print('now')\n"
            "        await asyncio.sleep(60)\n"
            "began = time.monotonic()\n"
            "try:\n"
            "    nc._link.call(stubborn)\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted', time.monotonic() - began < 5)\n",
            times=2,
        )
        assert out == "interrupted True\n"

    async def test_in_the_source_of_a_put(self, store: ObjectStore) -> None:
        out = await self.run(
            store,
            "def source():\n"
            "    yield b'1' * 1_000_000\n"
            "    print('now')\n"
            "    threading.Event().wait()\n"
            "try:\n"
            "    store.put('a', source())\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted', store.names(), store.status().size)\n",
        )
        assert out == "interrupted [] 0\n"

    async def test_in_a_writer(self, store: ObjectStore) -> None:
        out = await self.run(
            store,
            "try:\n"
            "    with store.open_writer('a') as writer:\n"
            "        writer.write(b'1' * 1_000_000)\n"
            "        print('now')\n"
            "        threading.Event().wait()\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted', store.names(), store.status().size)\n",
        )
        assert out == "interrupted [] 0\n"

    async def test_while_it_connects(self, store: ObjectStore) -> None:
        out = await self.run(
            store,
            "import socket\n"
            "silent = socket.create_server(('127.0.0.1', 0))\n"
            f"{INTERRUPTED}"
            "try:\n"
            "    objstore.sync.connect(f'nats://127.0.0.1:{silent.getsockname()[1]}', connect_timeout=60)\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted', store.names())\n"
            "silent.close()\n",
        )
        assert out == "interrupted []\n"

    async def test_another_signal(self, store: ObjectStore) -> None:
        """Whatever its handler raises, as the time limits of web workers do."""
        out = await self.run(
            store,
            "class Late(Exception): pass\n"
            "def late(*about): raise Late\n"
            "signal.signal(signal.SIGINT, late)\n"
            "subscription = nc.subscribe('x')\n"
            f"{INTERRUPTED}"
            "try:\n"
            "    next(subscription)\n"
            "except Late:\n"
            "    print('late', store.names())\n",
        )
        assert out == "late []\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
class TestFork:
    async def test_a_child(self, store: ObjectStore) -> None:
        """It cannot use what it inherits, may connect again, and leaves the parent's connection alone."""
        source = BEGIN + (
            "store.put('a', b'1' * 300_000)\n"
            "subscription = nc.subscribe('x')\n"
            "watcher, reader = store.watch().start(), store.open_reader('a')\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    try:\n"
            "        with nc, reader, watcher, subscription:\n"
            "            store.get('a')\n"
            "    except objstore.errors.ConnectionClosedError as exc:\n"
            "        print('child:', exc, nc.is_closed)\n"
            "    with objstore.sync.connect(url) as own:\n"
            "        print('child:', len(own.object_store(bucket).get('a')))\n"
            "    del subscription, watcher, reader\n"
            "    sys.exit(3)\n"
            "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
            "nc.publish('x', b'2')\n"
            "print('parent:', status, nc.stats.reconnects, len(store.get('a')), len(reader.read()))\n"
            "print('parent:', subscription.next_msg(20).data, next(watcher).name)\n"
            "watcher.stop(); reader.close(); nc.close()\n"
        )
        assert output(source, store.client.connected_url or "", store.bucket).splitlines() == [
            "child: the connection was made before this process was forked: connect again in the child True",
            "child: 300000",
            "parent: 3 0 300000 300000",
            "parent: b'2' a",
        ]

    def test_the_connection_ends_with_the_parent(self) -> None:
        """A child that lives on does not hold it open: the server sees its end at once."""
        source = (
            "import os, socket, threading, objstore.sync\n"
            "listening = socket.create_server(('127.0.0.1', 0))\n"
            "def serve():\n"
            "    with listening, listening.accept()[0] as connection:\n"
            '        connection.sendall(b\'INFO {"max_payload":1000,"headers":true}\\r\\n\')\n'
            "        while b'PING' not in connection.recv(4096): pass\n"
            "        connection.sendall(b'PONG\\r\\n')\n"
            "        while connection.recv(4096): pass\n"
            "        print('ended')\n"
            "server = threading.Thread(target=serve)\n"
            "server.start()\n"
            "nc = objstore.sync.connect(f'nats://127.0.0.1:{listening.getsockname()[1]}')\n"
            "reading, writing = os.pipe()\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    os.close(writing)\n"
            "    os.read(reading, 1)\n"
            "    os._exit(0)\n"
            "nc.close()\n"
            "server.join(10)\n"
            "print('the child lives:', os.waitpid(child, os.WNOHANG)[0] == 0)\n"
            "os.close(writing)\n"
        )
        assert output(source).splitlines() == ["ended", "the child lives: True"]

    def test_a_child_forked_while_the_last_connection_ends(self) -> None:
        """The thread runs no connection any more, but has not ended: a call must not wait for it."""
        source = (
            "import os, sys, signal, threading; sys.path.insert(0, 'tests')\n"
            "from support.blocking import memory_client\n"
            "from objstore.blocking.loop_thread import LoopThread\n"
            "from objstore.errors import ConnectionClosedError\n"
            "leaving, forked, stop = threading.Event(), threading.Event(), LoopThread.stop\n"
            "def late(thread, timeout=None):\n"
            "    leaving.set(); forked.wait(); stop(thread, timeout)\n"
            "LoopThread.stop = late\n"
            "client, server = memory_client()\n"
            "store = client.object_store('b', create=True)\n"
            "closing = threading.Thread(target=client.close)\n"
            "closing.start()\n"
            "leaving.wait()\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    signal.alarm(10)\n"
            "    try:\n"
            "        store.get('a')\n"
            "    except ConnectionClosedError as exc:\n"
            "        print('child:', exc, flush=True)\n"
            "    os._exit(3)\n"
            "print('parent:', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
            "forked.set()\n"
            "closing.join()\n"
        )
        assert output(source).splitlines() == [
            "child: the connection was made before this process was forked: connect again in the child",
            "parent: 3",
        ]

    async def test_multiprocessing(self, store: ObjectStore) -> None:
        source = BEGIN + (
            "import multiprocessing\n"
            "def work(number):\n"
            "    with objstore.sync.connect(url) as nc:\n"
            "        return nc.object_store(bucket).put(f'{number}', b'1').size\n"
            "with multiprocessing.get_context('fork').Pool(3) as pool:\n"
            "    print(pool.map(work, range(6)), len(store.names()))\n"
        )
        assert output(source, store.client.connected_url or "", store.bucket) == "[1, 1, 1, 1, 1, 1] 6\n"

    async def test_before_any_connection(self, store: ObjectStore) -> None:
        """As preloading web servers do: the application is imported, then each worker connects."""
        source = (
            "import os, sys, objstore.sync\n"
            "child = os.fork()\n"
            "with objstore.sync.connect(sys.argv[1]) as nc:\n"
            "    nc.object_store(sys.argv[2]).put('child' if not child else 'parent', b'')\n"
            "if child: os.waitpid(child, 0)\n"
        )
        assert output(source, store.client.connected_url or "", store.bucket) == ""
        assert await store.names() == ["child", "parent"]


def test_an_interactive_session(new_server: LocalServer) -> None:
    """A line typed into ``python -m asyncio`` runs inside a loop, as a cell of a notebook does."""
    lines = (
        "import asyncio, objstore.sync",
        f"nc = objstore.sync.connect({new_server.url!r})",
        "asyncio.get_running_loop().is_running()",
        "store = nc.object_store('interactive', create=True)",
        "store.put('a', b'typed').size",
        "await asyncio.sleep(0, store.get('a'))",
        "exit()",
    )
    done = subprocess.run(
        [sys.executable, "-m", "asyncio"],
        input="\n".join(lines) + "\n",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHON_BASIC_REPL": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert "True" in done.stdout
    assert "\n5\n" in done.stdout.replace(">>> ", "\n").replace("\n\n", "\n")
    assert "b'typed'" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
