"""Promises other than rates: memory of whole files, gets that leave nothing behind, import time.

    python -m bench basics [--quick]

Starts a private nats-server (R1, file storage, 128 KiB chunks), and also the oldest supported one, if it is
installed. Every byte read is compared before a figure is printed. ``--quick`` uses small sizes: it shows that
the script works, not how fast.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from .errors import BenchError
from .machine import ROOT, need_disk
from .peers.works import payload, resident

MIB = 1024 * 1024
OLD_SERVERS = ("/usr/sbin/nats-server", "/usr/bin/nats-server")


# --- what runs in the child processes ------------------------------------------------------------------


async def timed(call: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = await call()
    return time.perf_counter() - start, result


async def memory(url: str, size: int) -> dict[str, float]:
    """Peak memory that put_file and get_file add to a connected process."""
    import natsproto

    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory, "source"), Path(directory, "target")
        digest = hashlib.sha256()
        with source.open("wb") as file:
            block = payload(MIB)
            for number in range(size // MIB):
                piece = number.to_bytes(8, "big") + block[8:]
                digest.update(piece)
                file.write(piece)
        async with natsproto.connect(url) as nc:
            store = await nc.jetstream().create_object_store(bucket="bench")
            before = resident("VmRSS")
            put, _ = await timed(lambda: store.put_file("memory", source))
            after_put = resident("VmHWM")
            get, _ = await timed(lambda: store.get_file("memory", target))
            after_get = resident("VmHWM")
            await store.delete("memory")
        with target.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").digest() == digest.digest(), "wrong bytes"
    return {"put": put, "get": get, "put_memory": after_put - before, "get_memory": after_get - before}


async def many_gets(url: str, count: int, direct: bool) -> dict[str, float]:
    """Read 1 KiB ``count`` times in a row; afterwards no consumer may be left."""
    import natsproto

    data = payload(1024)
    bucket = f"gets-{'direct' if direct else 'leader'}"
    async with natsproto.connect(url) as nc:
        js = nc.jetstream()
        store = await js.create_object_store(bucket=bucket, allow_direct=direct)
        await store.put("one", data)
        await store.put("two", data, chunk_size=512)  # two chunks: the path that may need a consumer
        start = time.perf_counter()
        for number in range(count):
            name = "two" if number % 10 == 0 else "one"
            assert await store.get(name) == data, "wrong bytes"
        seconds = time.perf_counter() - start
        left = await js.consumer_names(f"OBJ_{bucket}")
        await js.delete_object_store(bucket)
    assert left == [], f"consumers left behind: {left}"
    return {"seconds": seconds, "rate": count / seconds}


CHILDREN = {
    "memory": lambda url, number, flag: memory(url, number),
    "gets": lambda url, number, flag: many_gets(url, number, flag == "direct"),
}


def child(kind: str, url: str, number: int, flag: str = "") -> dict[str, float]:
    """Run one measurement in a process of its own."""
    return child_process("basics", kind, url, str(number), flag)


def child_process(module: str, *words: str) -> dict[str, float]:
    """Run ``python -m bench MODULE --child WORDS``, and return the figures it prints.

    Raises:
        BenchError: it failed.
    """
    command = [sys.executable, "-m", "bench", module, "--child", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise BenchError(f"{words[0]} failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


# --- import time ---------------------------------------------------------------------------------------


def import_times(rounds: int) -> tuple[float, float]:
    """Median seconds to import asyncio alone, and this library with its two entry points."""
    statements = (
        "import asyncio",
        "import natsproto, objstore; natsproto.connect; objstore.ObjectStore",
    )
    program = "import time; s=time.perf_counter(); {}; print(time.perf_counter()-s)"
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for statement, collected in zip(statements, times, strict=True):
            out = subprocess.run(
                [
                    sys.executable,
                    "-I",
                    "-c",
                    f"import sys; sys.path.insert(0, {str(ROOT)!r}); " + program.format(statement),
                ],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            collected.append(float(out))
    return statistics.median(times[0]), statistics.median(times[1])


# --- the report ----------------------------------------------------------------------------------------


def line(what: str, value: str, wanted: str, good: bool) -> bool:
    print(f"  {'ok ' if good else 'LOW'}  {what:<46} {value:>22}   wanted {wanted}")
    return good


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench basics", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes; shows that it works")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        kind, url, number, flag = options.child
        print(json.dumps(asyncio.run(CHILDREN[kind](url, int(number), flag))))
        return 0
    from natsproto.server import LocalServer

    file_size = (16 if options.quick else 1024) * MIB
    gets = 200 if options.quick else 5000
    need_disk(4 * file_size)
    good = True
    with LocalServer() as server:
        print(f"nats-server {server.version} ({server.binary.path}), R1, file storage, 128 KiB chunks")
        child("gets", server.url, 1, "direct")  # warm-up
        found = child("memory", server.url, file_size)
        for verb in ("put", "get"):
            used = found[f"{verb}_memory"] / MIB
            text = f"{used:.1f} MiB at {file_size / 1e6 / found[verb]:.0f} MB/s"
            good &= line(f"{verb}_file {file_size // MIB} MiB adds memory", text, "< 64 MiB", used < 64)
        for flag in ("direct", "leader"):
            found = child("gets", server.url, gets, flag)
            what = f"{gets} gets of 1 KiB, allow_direct {'on' if flag == 'direct' else 'off'}"
            good &= line(what, f"{found['rate']:.0f}/s, no consumer left", "all succeed", True)
    old = next((path for path in OLD_SERVERS if os.path.exists(path)), None)
    if old is None:
        print("  --   nats-server 2.9.10 is not installed: its gets are left out")
    else:
        with LocalServer(binary=old) as server:
            for flag in ("direct", "leader"):
                found = child("gets", server.url, gets, flag)
                what = f"the same on {server.version}, allow_direct {'on' if flag == 'direct' else 'off'}"
                good &= line(what, f"{found['rate']:.0f}/s, no consumer left", "all succeed", True)
    base, total = import_times(3 if options.quick else 15)
    text = f"{total * 1e3:.0f} / {base * 1e3:.0f} ms = {total / base:.2f}x"
    good &= line("import, ours / asyncio", text, "<= 1.5x", total / base <= 1.5)
    if not good and options.quick:
        print("(small sizes: the ratios mean nothing)")
    return 0 if good or options.quick else 1
