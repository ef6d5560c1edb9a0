"""Every verb of the object store, drawn at random, with everything written down that the checker needs."""

from __future__ import annotations

import asyncio
import io
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

from objstore import NatsError, ObjectInfo, ObjectLink, ObjectMeta, ObjectStore, OutcomeUnknownError

from .content import body_id, digest, draw_size, make, part_of
from .runner import OurTimeout, Runner, row

Answer = tuple[Any, dict[str, Any]]

WEIGHTS = {
    "put": 22,
    "create": 5,
    "put_if": 6,
    "upload": 3,
    "writer": 4,
    "get": 14,
    "range": 8,
    "file": 4,
    "reader": 6,
    "info": 6,
    "exists": 2,
    "update": 6,
    "rename": 5,
    "copy": 3,
    "delete": 8,
    "link": 2,
    "follow": 2,
    "list": 3,
    "iter": 2,
    "names": 3,
    "dirs": 1,
    "snapshot": 2,
    "status": 1,
    "verify": 1,
    "gc": 1,
    "purge": 1,
    "atomic": 2,
    "ttl": 1,
}

LARGEST_CHUNK = (1 << 20) - 1024
"""Bytes: within the server's max_payload also where chunks have headers (``ttl``, ``atomic``)."""


class Verbs:
    """What one task of a client does."""

    def __init__(
        self, runner: Runner, stores: list[ObjectStore], way: str, task: dict[str, Any], slot: str
    ) -> None:
        self.runner = runner
        self.main, self.small = stores[0], stores[-1]
        self.way = way
        self.rng = random.Random(f"{task['seed']}/{slot}")
        self.names: list[str] = task["names"]
        self.links: list[str] = task["links"]
        self.expiring: list[str] = task["expiring"]
        self.largest: int = task["largest"]
        self.folder: str = os.path.join(task["folder"], slot)
        os.makedirs(self.folder, exist_ok=True)
        left_out = set(task["without"])
        self.weights = {verb: weight for verb, weight in WEIGHTS.items() if verb not in left_out}
        self.tokens: list[tuple[str, str, str]] = []

    async def step(self) -> None:
        """Do one thing."""
        (verb,) = self.rng.choices(list(self.weights), list(self.weights.values()))
        store = self.small if self.rng.random() < 0.12 else self.main
        await getattr(self, f"do_{verb}")(store)

    # -- shared -----------------------------------------------------------------------------------

    async def op(
        self, verb: str, store: ObjectStore, name: str, work: Callable[[], Awaitable[Any]], **args: Any
    ) -> Any:
        return await self.runner.op(verb, store.bucket, name, work, way=self.way, **args)

    def name(self) -> str:
        """Some names are asked for much more often than others."""
        if self.rng.random() < 0.25:
            return self.names[self.rng.randrange(4)]
        return self.rng.choice(self.names)

    def size(self, store: ObjectStore) -> int:
        largest = min(self.largest, 256 * 1024) if store is self.small else self.largest
        return draw_size(self.rng, largest)

    def chunk_size(self, size: int) -> int | None:
        wanted = min(max(512, size // self.rng.randint(1, 24)), LARGEST_CHUNK)
        return self.rng.choice([None, None, wanted]) if size else None

    async def info_of(self, store: ObjectStore, name: str) -> ObjectInfo | None:
        async def work() -> Answer:
            info = await store.get_info(name, show_deleted=True)
            return info, {"info": row(info)}

        return await self.op("info", store, name, work)

    # -- writing ----------------------------------------------------------------------------------

    async def _put(
        self, verb: str, store: ObjectStore, name: str, expected: int | None = None, **options: Any
    ) -> None:
        op_id = self.runner.next_id()
        body = body_id(op_id, self.size(store))
        data = make(body)
        cut = self.chunk_size(len(data))
        kind = (
            "bytes" if verb == "create" else self.rng.choice(["bytes", "bytes", "stream", "pieces", "file"])
        )
        if expected is not None:
            options["if_revision"] = expected
        metadata = {"body": body}

        async def work() -> Answer:
            if verb == "create":
                info = await store.create(name, data, op_id, metadata=metadata, chunk_size=cut, **options)
            elif kind == "file":
                path = os.path.join(self.folder, "source")
                with open(path, "wb") as file:
                    file.write(data)
                info = await store.put_file(name, path, op_id, metadata=metadata, chunk_size=cut, **options)
            else:
                source: Any = data
                if kind == "stream":
                    source = io.BytesIO(data)
                elif kind == "pieces":
                    source = pieces(data, self.rng.randint(1, 9))
                info = await store.put(name, source, op_id, metadata=metadata, chunk_size=cut, **options)
            return info, {"info": row(info)}

        ttl = options.get("ttl")
        await self.op(
            verb,
            store,
            name,
            work,
            op_id=op_id,
            body=body,
            digest=digest(data),
            kind=kind,
            ttl=None if ttl is None else ttl.total_seconds(),
            **({"if": expected} if expected is not None else {}),
        )

    async def do_put(self, store: ObjectStore) -> None:
        await self._put("put", store, self.name())

    async def do_create(self, store: ObjectStore) -> None:
        await self._put("create", store, self.name())

    async def do_atomic(self, store: ObjectStore) -> None:
        await self._put("put", self.main, self.name(), atomic=True)

    async def do_ttl(self, store: ObjectStore) -> None:
        ttl = timedelta(seconds=self.rng.choice([1, 2, 5]))
        await self._put("put", self.main, self.rng.choice(self.expiring), ttl=ttl)

    async def do_put_if(self, store: ObjectStore) -> None:
        name = self.name()
        info = await self.info_of(store, name)
        if info is not None:
            expected = 0 if info.deleted else info.revision
            await self._put("put", store, name, expected)

    async def do_writer(self, store: ObjectStore) -> None:
        name, op_id = self.name(), self.runner.next_id()
        body = body_id(op_id, self.size(store))
        data = make(body)
        step = max(1, len(data) // self.rng.randint(1, 9))
        fails = self.rng.random() < 0.1

        async def work() -> Answer:
            async with store.open_writer(name, op_id, metadata={"body": body}) as writer:
                for start in range(0, len(data), step):
                    await writer.write(data[start : start + step])
                if fails:
                    raise ValueError("the soak changed its mind")
            assert writer.info is not None
            return writer.info, {"info": row(writer.info)}

        await self.op("put", store, name, work, op_id=op_id, body=body, digest=digest(data), kind="writer")

    async def do_upload(self, store: ObjectStore) -> None:
        name, op_id = self.name(), self.runner.next_id()
        body = body_id(op_id, self.size(store))
        data = make(body)
        cut = self.chunk_size(len(data))
        stops = [self.rng.expovariate(1 / 0.01) for _ in range(self.rng.randrange(3))]

        async def work() -> Answer:
            token: str | None = None
            unsure: Exception | None = None
            for stop in [*stops, None]:
                try:
                    if token is None:
                        upload = await store.begin_upload(
                            name, op_id, metadata={"body": body}, chunk_size=cut
                        )
                        token = upload.token
                    else:
                        upload = await store.begin_upload(name, token=token)
                    if stop is None:
                        info = await upload.send(data)
                        return info, {"info": row(info)} if info.name == name else {}
                    sending = asyncio.ensure_future(upload.send(data))
                    await asyncio.wait([sending], timeout=stop)
                    if sending.done():
                        info = sending.result()
                        return info, {"info": row(info)} if info.name == name else {}
                    sending.cancel()
                    await asyncio.wait([sending])
                    unsure = unsure or OurTimeout()
                except NatsError as exc:
                    if isinstance(exc, OutcomeUnknownError):
                        unsure = exc
                    if stop is None:
                        raise unsure or exc from exc
                except asyncio.CancelledError:
                    if "sending" in locals() and not sending.done():
                        sending.cancel()
                        await asyncio.wait([sending])
                    raise
            raise AssertionError("the last one has no end")

        await self.op("upload", store, name, work, op_id=op_id, body=body, digest=digest(data))

    async def do_update(self, store: ObjectStore) -> None:
        name, op_id = self.name(), self.runner.next_id()
        expected = None
        if self.rng.random() < 0.4:
            info = await self.info_of(store, name)
            if info is None or info.deleted:
                return
            expected = info.revision

        async def work() -> Answer:
            meta = ObjectMeta(name, op_id, {"X-Soak": op_id})
            info = await store.update_meta(name, meta, if_revision=expected)
            return info, {"info": row(info)}

        await self.op(
            "update", store, name, work, op_id=op_id, **({"if": expected} if expected is not None else {})
        )

    async def do_rename(self, store: ObjectStore) -> None:
        name, to, op_id = self.name(), self.name(), self.runner.next_id()
        if name == to:
            return
        if self.rng.random() < 0.5:

            async def work() -> Answer:
                info = await store.rename(name, to)
                return info, {"info": row(info)}

            await self.op("rename", store, name, work, op_id=op_id, to=to)
            return

        async def tagged() -> Answer:
            info = await store.update_meta(name, ObjectMeta(to, op_id))
            return info, {"info": row(info)}

        await self.op("retag", store, name, tagged, op_id=op_id, to=to)

    async def do_copy(self, store: ObjectStore) -> None:
        name, to = self.name(), self.name()
        if name == to:
            return

        async def work() -> Answer:
            info = await store.copy(name, to)
            return info, {"info": row(info), "body": info.metadata.get("body", "?")}

        await self.op("copy", store, name, work, to=to)

    async def do_delete(self, store: ObjectStore) -> None:
        name = self.name()
        expected = None
        if self.rng.random() < 0.3:
            info = await self.info_of(store, name)
            if info is None or info.deleted:
                return
            expected = info.revision

        async def work() -> Answer:
            return await store.delete(name, if_revision=expected), {}

        await self.op("delete", store, name, work, **({"if": expected} if expected is not None else {}))

    async def do_link(self, store: ObjectStore) -> None:
        number = self.rng.randrange(len(self.links))
        name, target, op_id = self.links[number], self.names[number], self.runner.next_id()
        if self.rng.random() < 0.2:

            async def remove() -> Answer:
                return await self.main.delete(name), {}

            await self.op("delete", self.main, name, remove)
            return

        async def work() -> Answer:
            link = ObjectLink(self.main.bucket, target)
            info = await self.main.add_link(name, link, description=op_id)
            return info, {"info": row(info)}

        await self.op("link", self.main, name, work, op_id=op_id, of=target)

    # -- reading ----------------------------------------------------------------------------------

    async def do_get(self, store: ObjectStore) -> None:
        await self._get(store, self.name())

    async def _get(self, store: ObjectStore, name: str, **args: Any) -> None:
        async def work() -> Answer:
            data = await store.get(name)
            return None, {"digest": digest(data), "size": len(data)}

        await self.op("get", store, name, work, **args)

    async def do_follow(self, store: ObjectStore) -> None:
        number = self.rng.randrange(len(self.links))
        await self._get(self.main, self.links[number], of=self.names[number])

    async def do_info(self, store: ObjectStore) -> None:
        await self.info_of(store, self.name())

    async def do_exists(self, store: ObjectStore) -> None:
        name = self.name()

        async def work() -> Answer:
            return None, {"exists": await store.exists(name)}

        await self.op("exists", store, name, work)

    async def do_range(self, store: ObjectStore) -> None:
        name = self.name()
        info = await self.info_of(store, name)
        if info is None or info.deleted or not info.size:
            return
        start = self.rng.randrange(info.size)
        end = self.rng.choice([start + 1, start + self.rng.randrange(info.size + 1), info.size + 5])
        body = info.metadata.get("body", "?")

        async def work() -> Answer:
            data = await store.get_range(name, start, end)
            return None, {"size": len(data), **part_of(body, start, end, data)}

        await self.op("range", store, name, work, start=start, stop=end)

    async def do_reader(self, store: ObjectStore) -> None:
        name = self.name()
        jumps = [self.rng.random() for _ in range(self.rng.randrange(4))]
        whole = self.rng.random() < 0.5

        async def work() -> Answer:
            async with store.open_reader(name) as reader:
                info = reader.info
                body = info.metadata.get("body", "?")
                if whole:
                    data = b"".join([piece async for piece in reader])
                    return None, {"info": row(info), "digest": digest(data)}
                told: dict[str, Any] = {}
                for jump in jumps:
                    await reader.seek(int(jump * info.size))
                    start = reader.tell()
                    size = self.rng.randint(1, 200_000)
                    told |= part_of(body, start, start + size, await reader.read(size))
                    if "part" in told:
                        break
                return None, {"info": row(info), **told}

        await self.op("reader", store, name, work)

    async def do_file(self, store: ObjectStore) -> None:
        name = self.name()
        resume = self.rng.random() < 0.5
        path = os.path.join(self.folder, f"target-{name.replace('/', '_')}")

        async def work() -> Answer:
            info = await store.get_file(name, path, resume=resume)
            with open(path, "rb") as file:
                data = file.read()
            os.unlink(path)
            return None, {"info": row(info), "digest": digest(data)}

        await self.op("file", store, name, work)

    # -- the whole bucket -------------------------------------------------------------------------

    async def do_list(self, store: ObjectStore) -> None:
        prefix = self.rng.choice(["", "", "n1"])
        deleted = self.rng.random() < 0.5

        async def work() -> Answer:
            infos = await store.list(prefix=prefix, include_deleted=deleted)
            return None, {"list": [row(info) for info in infos]}

        await self.op("list", store, "", work, prefix=prefix)

    async def do_iter(self, store: ObjectStore) -> None:
        deleted = self.rng.random() < 0.5

        async def work() -> Answer:
            found = [row(info) async for info in store.iter(include_deleted=deleted)]
            return None, {"list": found}

        await self.op("iter", store, "", work)

    async def do_names(self, store: ObjectStore) -> None:
        live = self.rng.random() < 0.4

        async def work() -> Answer:
            return None, {"names": await store.names(live=live)}

        await self.op("names", store, "", work, live=live)

    async def do_dirs(self, store: ObjectStore) -> None:
        async def work() -> Answer:
            found = await store.list_dirs("")
            return None, {"count": len(found.objects)}

        await self.op("dirs", store, "", work)

    async def do_snapshot(self, store: ObjectStore) -> None:
        """A short watch: what it tells of until it has caught up is a listing."""

        async def work() -> Answer:
            rows: dict[str, list[Any]] = {}
            async with store.watch() as watch:
                reading = asyncio.ensure_future(collect(watch, rows))
                caught = asyncio.ensure_future(watch.caught_up)
                try:
                    await asyncio.wait([reading, caught], return_when=asyncio.FIRST_COMPLETED)
                    if reading.done():
                        reading.result()
                    caught.result()
                    # What had come by then may still lie in the watcher's queue.
                    before = -1
                    while before < len(rows):
                        before = len(rows)
                        await asyncio.sleep(0.1)
                finally:
                    for task in (reading, caught):
                        task.cancel()
                    await asyncio.wait([reading, caught])
            return None, {"list": list(rows.values())}

        await self.op("snapshot", store, "", work)

    async def do_status(self, store: ObjectStore) -> None:
        async def work() -> Answer:
            status = await store.status()
            return None, {"count": status.count, "consumers": status.consumers}

        await self.op("status", store, "", work)

    async def do_verify(self, store: ObjectStore) -> None:
        async def work() -> Answer:
            report = await store.verify()
            problems = [[item.kind, item.name, item.detail, item.revision] for item in report.problems]
            return None, {"problems": problems}

        await self.op("verify", store, "", work)

    async def do_gc(self, store: ObjectStore) -> None:
        async def work() -> Answer:
            report = await store.gc(older_than=timedelta(hours=6))
            return None, {"orphans": len(report.orphans), "recent": len(report.recent)}

        await self.op("gc", store, "", work)

    async def do_purge(self, store: ObjectStore) -> None:
        async def work() -> Answer:
            return None, {"purged": await store.purge_deleted(timedelta(minutes=4))}

        await self.op("purge", store, "", work)


async def pieces(data: bytes, count: int) -> AsyncIterator[bytes]:
    """An asynchronous source."""
    for piece in _cut(data, count):
        await asyncio.sleep(0)
        yield piece


def _cut(data: bytes, count: int) -> Iterator[bytes]:
    step = max(1, len(data) // count)
    for start in range(0, len(data), step):
        yield data[start : start + step]


async def collect(watch: Any, rows: dict[str, list[Any]]) -> None:
    async for info in watch:
        rows[info.name] = row(info)
