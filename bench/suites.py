"""The rows of each suite: target ratios, one factor varied at a time, growth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .contestants import Contestant
from .peers.base import CHUNK
from .rows import BEFORE, MIB, OURS, Row

KIB = 1024
GIB = 1024 * MIB

OWN = Contestant(OURS, "natsproto")
UVLOOP = Contestant("natsproto, uvloop", "natsproto+uvloop")
PEERS = [Contestant(name, name) for name in ("nats-py", "natsrpy", "natsio")]
NATSRPY_DEFAULT = Contestant("natsrpy, 24 KiB chunks", "natsrpy", {"chunk": 24 * 1024})
"""natsrpy with its default chunks of 24 KiB; in the other columns all clients use 128 KiB."""

CEILING = Contestant("ceiling", "ceiling")
UNHASHED = Contestant("ceiling, unhashed", "ceiling", flags=("--no-hash",))
ALL = [OWN, UVLOOP, *PEERS]

SMALL = 300
"""Objects in one sample of small ones, for every client: nats-py and natsrpy leave a consumer behind for
each get, and a server takes no more than about 1 000 (error 10026). They are removed after each turn."""

FEW_CORE = 20_000
"""Messages that natsrpy publishes or receives in one sample, a tenth of the others': each takes 0.2 ms."""


def with_options(contestant: Contestant, **options: Any) -> Contestant:
    return replace(contestant, options={**contestant.options, **options})


def reach() -> list[Row]:
    """The target ratios of this library (R1, file storage, 128 KiB chunks)."""
    big, mib, kib = {"size": 100 * MIB}, {"size": MIB}, {"size": KIB}
    few = {**kib, "count": SMALL}
    ceilings = [CEILING, UNHASHED]
    at_once = [OWN, Contestant("natsproto, one at a time", "natsproto", {"concurrency": 1}), *PEERS]
    core = [OWN, UVLOOP, PEERS[0], with_options(PEERS[1], count=FEW_CORE), PEERS[2], CEILING]
    wanted_core = {"nats-py": 1.2}
    return [
        Row(
            "put-100m",
            "put {size} from bytes",
            "put",
            big,
            [*ALL, NATSRPY_DEFAULT, *ceilings],
            "MB/s",
            {"nats-py": 2.5, "natsrpy": 4.5, NATSRPY_DEFAULT.label: 4.5, "natsio": 2.0, "ceiling": 0.85},
        ),
        Row(
            "get-100m",
            "get {size} into bytes",
            "get",
            big,
            [*ALL, *ceilings],
            "MB/s",
            {"nats-py": 110.0, "natsrpy": 2.2, "natsio": 2.0},
        ),
        Row(
            "read-100m",
            "read {size} by readinto",
            "read_into",
            big,
            [OWN, UVLOOP, PEERS[1], *ceilings],
            "MB/s",
            {"natsrpy": 2.7, "ceiling": 0.8},
        ),
        Row(
            "put-1m",
            "put {size}",
            "put",
            {**mib, "count": 40},
            [*ALL, NATSRPY_DEFAULT, CEILING],
            "/s",
            {"nats-py": 2.0, "natsrpy": 3.0, NATSRPY_DEFAULT.label: 3.0},
        ),
        Row(
            "get-1m",
            "get {size}",
            "get",
            {**mib, "count": 40},
            [*ALL, CEILING],
            "/s",
            {"nats-py": 2.2, "natsrpy": 2.0},
        ),
        Row("put-1k", "put {size}", "put", few, ALL, "/s", {"nats-py": 1.5, "natsrpy": 1.2}),
        Row("get-1k", "get {size}", "get", few, ALL, "/s", {"nats-py": 4.0, "natsrpy": 2.0}),
        Row(
            "put-1k-32",
            "put {size}, {concurrency} at once",
            "put",
            {**kib, "count": 1600, "concurrency": 32},
            at_once,
            "/s",
            {"nats-py": 3.0, "natsproto, one at a time": 2.0},
        ),
        Row(
            "get-1k-32",
            "get {size}, {concurrency} at once",
            "get",
            {**kib, "count": 2 * SMALL, "concurrency": 32},
            at_once,
            "/s",
            {"nats-py": 3.0, "natsproto, one at a time": 2.0},
        ),
        Row(
            "list-10k",
            "list {count}",
            "list_",
            {"size": 1, "count": 10_000},
            ALL,
            "ms",
            {"nats-py": 3.0, "natsio": 2.5},
        ),
        Row(
            "parser",
            "parser, {size} frames",
            "parse",
            {"size": 16, "count": 200_000},
            [OWN, PEERS[0], PEERS[2]],
            "/s",
            {"nats-py": 1.25},
        ),
        Row("publish", "publish {size}", "publish", {"size": 16, "count": 200_000}, core, "/s", wanted_core),
        Row(
            "subscribe",
            "subscribe {size}",
            "subscribe",
            {"size": 16, "count": 200_000},
            core,
            "/s",
            wanted_core,
        ),
        Row("memory-put", "memory, put of {size}", "put_stream", {"size": GIB}, [OWN], "MiB", {OURS: 32.0}),
        Row("memory-get", "memory, read of {size}", "read_into", {"size": GIB}, [OWN], "MiB", {OURS: 32.0}),
    ]


WORKS = ("put", "get", "readinto", "range", "list", "names", "watch", "publish", "subscribe", "request")


def works(
    names: Iterable[str],
    *,
    sizes: Iterable[int] = (MIB,),
    storages: Iterable[str] = ("file",),
    chunks: Iterable[int] = (CHUNK,),
    concurrencies: Iterable[int] = (1,),
    nodes: Iterable[int] = (1,),
    count: int = 1000,
) -> list[Row]:
    """Every combination of the arguments."""
    rows: list[Row] = []
    for name in names:
        if name in ("publish", "subscribe", "request"):
            rows += [_core(name, size) for size in sizes]
            continue
        for node in nodes:
            for storage in storages:
                where = {"storage": storage, "nodes": node}
                if name in ("list", "names"):
                    rows.append(_listing(name, count, **where))
                elif name == "watch":
                    options = {"count": 100}
                    rows.append(Row("watch", "put to watcher, 1 B", "watch", options, ALL, "ms", **where))
                else:
                    rows += [
                        _object(name, size, chunk, concurrency, **where)
                        for size in sizes
                        for chunk in chunks
                        for concurrency in concurrencies
                    ]
    return rows


def _core(name: str, size: int) -> Row:
    count = 2000 if name == "request" else max(200, min(200_000, 64 * MIB // max(size, 1)))
    unit = "ms" if name == "request" else "/s"
    options = {"size": size, "count": count}
    key = f"{name}-{size}"
    slow = with_options(PEERS[1], count=min(count, FEW_CORE))
    contestants = [OWN, UVLOOP, PEERS[0], slow, PEERS[2], CEILING]
    return Row(key, f"{name} {{size}}", name, options, contestants, unit)


def _listing(name: str, count: int, **where: Any) -> Row:
    contestants = ALL if name == "list" else [OWN, UVLOOP]
    options = {"size": 1, "count": count}
    work = "list_" if name == "list" else name
    return Row(f"{name}-{count}", f"{name} {{count}}", work, options, contestants, "ms", **where)


def _object(name: str, size: int, chunk: int, concurrency: int, **where: Any) -> Row:
    if name == "range":
        size = max(size, 2 * MIB)
        options = {"size": size, "count": 30, "length": MIB}
        key = f"range-{size}-{where['storage']}-{where['nodes']}"
        title = "{length} out of {size}"
        return Row(key, title, "get_range", options, [OWN, UVLOOP], "ms", **where)
    large = size >= 16 * MIB
    unit = "MB/s" if large else "/s"
    count = max(concurrency, 1 if large else 40 if size > 64 * KIB else SMALL)
    options = {"size": size, "count": count}
    title = f"{name} {{size}}"
    key = f"{name}-{size}-{chunk}-{concurrency}-{where['storage']}-{where['nodes']}"
    if chunk != CHUNK:
        title += ", chunks of {chunk}"
    if concurrency > 1:
        title += ", {concurrency} at once"
    if where["storage"] != "file":
        title += f", {where['storage']}"
    if where["nodes"] > 1:
        title += f", R{where['nodes']}"
    peers = PEERS
    if name == "get" and size > 100 * MIB:
        peers = PEERS[1:]  # nats-py's get is quadratic
    if name == "readinto":
        return Row(key, title, "read_into", options, [OWN, UVLOOP, PEERS[1], CEILING], unit, **where)
    if name == "put":
        options["chunk"] = chunk
    ceilings = [CEILING] if concurrency == 1 and size >= MIB and where["nodes"] == 1 else []
    options["concurrency"] = concurrency
    return Row(key, title, name, options, [OWN, UVLOOP, *peers, *ceilings], unit, **where)


def factors() -> list[Row]:
    """One factor varied at a time around 100 MiB, file storage, chunks of 128 KiB, one by one, one server."""
    names = ("put", "get")
    base = {"sizes": (100 * MIB,)}
    return [
        *works(names, sizes=(KIB, MIB, 100 * MIB, GIB)),
        *works(names, **base, storages=("memory",)),
        *works(("put",), **base, chunks=(512 * KIB, MIB)),
        *works(names, sizes=(KIB, MIB), concurrencies=(32,)),
        *works(names, **base, nodes=(3,)),
        *works(("range",), sizes=(100 * MIB,)),
        *works(("list", "names"), count=10_000),
        *works(("watch",)),
        *works(("publish", "subscribe", "request"), sizes=(16, KIB)),
        *works(("publish", "subscribe"), sizes=(128 * KIB,)),
    ]


def growth(*, quick: bool = False) -> list[Row]:
    """Ours alone: the cost must grow with the bytes moved or names listed, and with nothing else."""
    sizes = [KIB, 16 * KIB, 128 * KIB, MIB, 16 * MIB, 128 * MIB, GIB, 4 * GIB]
    counts = [100, 1_000, 10_000, 100_000]
    if quick:
        sizes, counts = sizes[:4], counts[:2]
    rows: list[Row] = []
    for work, name in (("put_stream", "put"), ("read_into", "get")):
        for size in sizes:
            count = max(1, min(200, 16 * MIB // size))
            options = {"size": size, "count": count}
            rows.append(Row(f"{name}-{size}", f"{name} {{size}}", work, options, [OWN], "MB/s"))
    for size in [s for s in sizes if s > MIB]:
        options = {"size": size, "count": 30, "length": MIB}
        rows.append(Row(f"range-{size}", "{length} out of {size}", "get_range", options, [OWN], "ms"))
    for name in ("list", "names"):
        for count in counts:
            row = _listing(name, count, storage="file", nodes=1)
            rows.append(replace(row, contestants=[OWN]))
    return rows


def against(row: Row, tree: Path) -> Row:
    """The same row with this library as it is in another directory, next to ours."""
    before = replace(row.contestants[0], label=BEFORE, tree=tree)
    return replace(row, contestants=[row.contestants[0], before, *row.contestants[1:]])


def tiny(row: Row) -> Row:
    """The same row with small sizes: it shows that the row works."""
    limits = {"size": 2 * MIB, "count": 20, "concurrency": 4}
    if row.work in ("publish", "subscribe", "parse", "request"):
        limits["count"] = 500

    def cut(options: dict[str, Any]) -> dict[str, Any]:
        return {key: min(value, limits.get(key, value)) for key, value in options.items()}

    contestants = [replace(c, options=cut(c.options)) for c in row.contestants]
    return replace(row, options=cut(row.options), contestants=contestants)
