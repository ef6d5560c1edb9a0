"""What the capabilities cost: ranges, names, iteration, verification; exit code 1 when a target is missed.

    python -m bench capabilities [--quick] [--only range,names,iter,verify]

Starts a private nats-server (R1, file storage, 128 KiB chunks). Each measurement runs in a process of its
own. Those that are compared take turns; medians and ratios are of one run. Every byte and every name is
compared with what was stored before a figure is printed. ``--quick`` uses small sizes: it shows that the
script works, not how fast.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .basics import child_process, line, timed
from .machine import need_disk
from .peers.works import PIECE, part, pieces, resident

MIB = 1024 * 1024
CONCURRENT = 256
"""Objects stored at a time while a bucket is filled."""


def name_of(number: int) -> str:
    return f"folder-{number % 100:02}/object-{number:06}.txt"


# --- what runs in the child processes ------------------------------------------------------------------


async def fill_big(url: str, options: dict[str, Any]) -> dict[str, float]:
    """A large object, and as many bytes in small ones."""
    import natsproto

    async with natsproto.connect(url) as nc:
        store = await nc.jetstream().create_object_store(bucket="ranges")
        await store.put("large", pieces(options["large"]))
        for number in range(options["many"]):
            await store.put(f"small-{number}", pieces(options["small"]))
    return {}


async def ranges(url: str, options: dict[str, Any]) -> dict[str, float]:
    """Median seconds of reading 1 MiB at random positions, taking turns.

    From a large object; from one small object, which the server keeps in its cache; and from one of many
    small objects, which the server must load just like the parts of the large one.
    """
    import natsproto

    rng = random.Random(options["seed"])
    times: dict[str, list[float]] = {"cached": [], "small": [], "large": []}
    async with natsproto.connect(url) as nc:
        store = await nc.jetstream().object_store("ranges")
        await store.get_range("large", 0, PIECE)  # imports, buffers
        for _ in range(options["count"]):
            for kind, collected in times.items():
                number = 0 if kind == "cached" else rng.randrange(1, options["many"])
                name = "large" if kind == "large" else f"small-{number}"
                start = rng.randrange(options["large" if kind == "large" else "small"] - PIECE + 1)
                seconds, data = await timed(lambda: store.get_range(name, start, start + PIECE))  # noqa: B023
                assert data == part(start, PIECE), f"wrong bytes at {start} of {name}"
                collected.append(seconds)
    return {kind: statistics.median(collected) for kind, collected in times.items()}


async def whole(url: str, options: dict[str, Any]) -> dict[str, float]:
    """Seconds that it takes to read the large object into memory, and into a file."""
    import natsproto

    digest = hashlib.sha256()
    for block in pieces(options["large"]):
        digest.update(block)
    async with natsproto.connect(url) as nc:
        store = await nc.jetstream().object_store("ranges")
        get, data = await timed(lambda: store.get("large", max_size=options["large"]))
        assert hashlib.sha256(data).digest() == digest.digest(), "wrong bytes"
        del data
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory, "target")
            get_file, _ = await timed(lambda: store.get_file("large", target))
            with target.open("rb") as file:
                assert hashlib.file_digest(file, "sha256").digest() == digest.digest(), "wrong bytes"
    return {"get": get, "get_file": get_file}


async def fill_many(url: str, options: dict[str, Any]) -> dict[str, float]:
    """A bucket of many small objects: one byte each, or only their metas."""
    import natsproto

    data = b"" if options["empty"] else b"x"
    numbers = iter(range(options["count"]))
    async with natsproto.connect(url) as nc:
        store = await nc.jetstream().create_object_store(bucket=options["bucket"])

        async def worker() -> None:
            for number in numbers:
                await store.put(name_of(number), data)

        seconds, _ = await timed(lambda: asyncio.gather(*(worker() for _ in range(CONCURRENT))))
    return {"seconds": seconds}


async def listing(url: str, options: dict[str, Any]) -> dict[str, float]:
    """Median seconds of one way to list the bucket, after one call to warm up, in ``rounds`` calls."""
    import natsproto

    wanted = sorted(map(name_of, range(options["count"])))
    times = []
    async with natsproto.connect(url) as nc:
        store = await nc.jetstream().object_store(options["bucket"])
        for _ in range(options["rounds"] + 1):
            if options["verb"] == "names":
                seconds, found = await timed(store.names)
            elif options["verb"] == "list":
                seconds, infos = await timed(store.list)
                found = sorted(info.name for info in infos)
            else:
                seconds, report = await timed(store.verify)
                assert report.ok, report.problems
                assert report.objects == options["count"], "objects are missing"
                found = wanted
            assert found == wanted, "wrong names"
            times.append(seconds)
    return {"seconds": statistics.median(times[1:])}


async def nats_py_list(url: str, options: dict[str, Any]) -> dict[str, float]:
    import nats

    wanted = sorted(map(name_of, range(options["count"])))
    times = []
    nc = await nats.connect(url)
    store = await nc.jetstream().object_store(options["bucket"])
    for _ in range(options["rounds"] + 1):
        seconds, infos = await timed(store.list)
        assert sorted(info.name for info in infos) == wanted, "wrong names"
        times.append(seconds)
    await nc.close()
    return {"seconds": statistics.median(times[1:])}


async def iterate(url: str, options: dict[str, Any]) -> dict[str, float]:
    """Peak memory that iterating adds to a connected process."""
    import natsproto

    async with natsproto.connect(url) as nc:
        store = await nc.jetstream().object_store(options["bucket"])
        seen = bytearray(options["count"])  # one byte an object
        before = resident("VmRSS")
        start = time.perf_counter()
        async for info in store.iter():
            number = int(info.name[-10:-4])
            assert info.name == name_of(number), "wrong name"
            seen[number] += 1
        seconds = time.perf_counter() - start
        memory = resident("VmHWM") - before
    assert seen == b"\1" * options["count"], "names are missing, or came twice"
    return {"seconds": seconds, "memory": memory}


CHILDREN = {
    "fill-big": fill_big,
    "ranges": ranges,
    "whole": whole,
    "fill-many": fill_many,
    "listing": listing,
    "nats-py": nats_py_list,
    "iter": iterate,
}


def child(kind: str, url: str, **options: Any) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    return child_process("capabilities", kind, url, json.dumps(options))


# --- the report ----------------------------------------------------------------------------------------


def report_ranges(url: str, quick: bool, runs: int) -> bool:
    sizes = {"small": 10 * MIB, "large": (64 if quick else 1024) * MIB, "many": 6 if quick else 100}
    child("fill-big", url, **sizes)
    found = [child("ranges", url, **sizes, count=20 if quick else 100, seed=run) for run in range(runs)]
    large = statistics.median(run["large"] for run in found)
    good = True
    for kind, what in (("small", f"one of {sizes['many']} of 10 MiB"), ("cached", "the same of 10 MiB")):
        small = statistics.median(run[kind] for run in found)
        text = f"{large * 1e3:.2f} / {small * 1e3:.2f} ms = {large / small:.2f}x"
        what = f"range of 1 MiB: {sizes['large'] // MIB} MiB / {what}"
        good &= line(what, text, "<= 1.5x", large / small <= 1.5)
    full = child("whole", url, **sizes)
    for verb, seconds in full.items():
        text = f"{seconds:.2f} s / {large * 1e3:.2f} ms = {seconds / large:.0f}x"
        what = f"{verb} of {sizes['large'] // MIB} MiB / range of 1 MiB"
        good &= line(what, text, ">= 50x", seconds / large >= 50)
    return good


def report_listing(url: str, quick: bool, runs: int, wanted: set[str]) -> bool:
    count = 500 if quick else 10_000
    options: dict[str, Any] = {"bucket": "names", "count": count, "rounds": 3}
    child("fill-many", url, **options, empty=False)
    kinds: dict[str, Callable[[], dict[str, float]]] = {
        verb: (lambda verb=verb: child("listing", url, verb=verb, **options))
        for verb in ("list", "names", "verify")
    }
    kinds["nats-py"] = lambda: child("nats-py", url, **options)
    if "names" not in wanted:
        del kinds["names"], kinds["nats-py"]
    if "verify" not in wanted:
        del kinds["verify"]
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(runs):
        for kind, measure in kinds.items():
            found[kind].append(measure()["seconds"])
    taken = {kind: statistics.median(values) * 1e3 for kind, values in found.items()}
    good = True
    if "names" in wanted:
        ratio = taken["nats-py"] / taken["names"]
        text = f"{taken['nats-py']:.1f} / {taken['names']:.1f} ms = {ratio:.1f}x"
        good &= line(f"{count} objects, nats-py's list / names()", text, ">= 10x", ratio >= 10)
        ratio = taken["nats-py"] / taken["list"]
        text = f"{taken['nats-py']:.1f} / {taken['list']:.1f} ms = {ratio:.1f}x"
        good &= line(f"{count} objects, nats-py's list / list()", text, "(no target)", True)
    if "verify" in wanted:
        ratio = taken["verify"] / taken["list"]
        text = f"{taken['verify']:.1f} / {taken['list']:.1f} ms = {ratio:.2f}x"
        good &= line(f"{count} objects, verify() / list()", text, "< 2x", ratio < 2)
    return good


def report_iter(url: str, quick: bool) -> bool:
    count = 2000 if quick else 100_000
    filled = child("fill-many", url, bucket="iter", count=count, empty=True)
    print(f"  --   {count} empty objects stored at {count / filled['seconds']:.0f}/s", flush=True)
    found = child("iter", url, bucket="iter", count=count)
    text = f"{found['memory'] / MIB:.1f} MiB at {count / found['seconds']:.0f}/s"
    return line(f"iter() over {count} objects adds memory", text, "< 50 MiB", found["memory"] < 50 * MIB)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench capabilities", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="alternating runs (3)")
    parser.add_argument("--quick", action="store_true", help="small sizes; shows that it works")
    parser.add_argument("--only", default="range,names,iter,verify", help="some of: range,names,iter,verify")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        kind, url, arguments = options.child
        print(json.dumps(asyncio.run(CHILDREN[kind](url, json.loads(arguments)))))
        return 0
    from natsproto.server import LocalServer

    wanted = set(options.only.split(","))
    need_disk((1 if options.quick else 6) * 1024 * MIB)
    runs = 1 if options.quick else options.runs
    good = True
    with LocalServer() as server:
        print(
            f"nats-server {server.version} ({server.binary.path}), R1, file storage, 128 KiB chunks",
            flush=True,
        )
        if "range" in wanted:
            good &= report_ranges(server.url, options.quick, runs)
        if wanted & {"names", "verify"}:
            good &= report_listing(server.url, options.quick, runs, wanted)
        if "iter" in wanted:
            good &= report_iter(server.url, options.quick)
    if not good and options.quick:
        print("(small sizes: the ratios mean nothing)")
    return 0 if good or options.quick else 1
