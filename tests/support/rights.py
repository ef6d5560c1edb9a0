"""The page about rights: its sets, and each of its calls with each choice of sets that is enough."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import natsproto
from natsproto.jetstream.context import JetStreamContext
from objstore import ObjectMeta, ObjectStore
from support.objects import chunk_counts, pattern

PAGE = (Path(__file__).parent.parent.parent / "docs" / "permissions.md").read_text()
SETS = {
    match[1]: re.findall(r"`([^`]+)`", match[2])
    for match in re.finditer(r"^\| \*\*(\w+)\*\* \| (.*) \|$", PAGE, re.MULTILINE)
}
BYTES = pattern(300_000)


class Case(NamedTuple):
    """One call with one of the sets of rights that the page says will do."""

    call: str
    sets: tuple[str, ...]
    one_of: tuple[str, ...]  # what was chosen from

    @property
    def id(self) -> str:
        return f"{self.call}-{'-'.join(self.sets)}"

    def rights(self, bucket: str, *, without: str = "") -> list[str]:
        subjects = [subject for name in self.sets for subject in SETS[name] if subject != without]
        # An empty list would allow everything.
        return [subject.replace("BUCKET", bucket) for subject in subjects] or ["nothing"]


def cases() -> list[Case]:
    found = []
    for calls, rights in re.findall(r"^\| (`[A-Za-z_.]+`.*) \| (\*\*.*) \|$", PAGE, re.MULTILINE):
        needed, _, choice = rights.partition("one of ")
        sets = tuple(re.findall(r"\*\*(\w+)\*\*", needed))
        one_of = tuple(re.findall(r"\*\*(\w+)\*\*", choice))
        for call in re.findall(r"`([\w.]+)`", calls):
            found += [Case(call, (*sets, chosen), one_of) for chosen in one_of]
            if not one_of:
                found.append(Case(call, sets, ()))
    return found


CASES = cases()


async def call_iter(store: ObjectStore, path: Path) -> None:
    assert [info.name async for info in store.iter()] == ["o", "s"]


async def call_watch(store: ObjectStore, path: Path) -> None:
    async with store.watch() as watcher:
        async for info in watcher:
            assert info is not None
            return


async def call_get(store: ObjectStore, path: Path) -> None:
    assert await store.get("o") == BYTES
    assert await store.get("s") == b"small"


async def call_get_file(store: ObjectStore, path: Path) -> None:
    await store.get_file("o", path / "out")
    assert (path / "out").read_bytes() == BYTES


async def call_open_reader(store: ObjectStore, path: Path) -> None:
    async with store.open_reader("o") as reader:
        assert await reader.read() == BYTES


async def call_get_range(store: ObjectStore, path: Path) -> None:
    assert await store.get_range("o", 1000, 200_000) == BYTES[1000:200_000]
    assert await store.get_range("o", 0, 10) == BYTES[:10]


async def call_exists(store: ObjectStore, path: Path) -> None:
    assert await store.exists("o")
    assert not await store.exists("no such name")


async def call_verify(store: ObjectStore, path: Path) -> None:
    assert (await store.verify(deep=True)).ok


async def call_put(store: ObjectStore, path: Path) -> None:
    await store.put("n", BYTES)
    await store.put("n", b"2")
    info = await store.get_info("n")
    await store.put("n", b"3", if_revision=info.revision)


async def call_put_file(store: ObjectStore, path: Path) -> None:
    (path / "in").write_bytes(BYTES)
    await store.put_file("n", path / "in")


async def call_open_writer(store: ObjectStore, path: Path) -> None:
    async with store.open_writer("n") as writer:
        await writer.write(BYTES)


async def call_begin_upload(store: ObjectStore, path: Path) -> None:
    upload = await store.begin_upload("n")
    await upload.send(BYTES)


async def call_add_link(store: ObjectStore, path: Path) -> None:
    await store.add_link("n", await store.get_info("o"))


async def call_rename(store: ObjectStore, path: Path) -> None:
    await store.rename("o", "n")
    await store.rename("n", "o")


async def call_delete(store: ObjectStore, path: Path) -> None:
    await store.delete("o")
    assert not await store.exists("o")


async def call_gc(store: ObjectStore, path: Path) -> None:
    assert (await store.gc(older_than=timedelta(0))).orphans[0].removed


async def call_abort(store: ObjectStore, path: Path) -> None:
    upload = await store.begin_upload("n", token=(path / "token").read_text())
    before = await chunk_counts(store)
    await upload.abort()
    assert len(before.keys() - (await chunk_counts(store)).keys()) == 1


async def call_purge_deleted(store: ObjectStore, path: Path) -> None:
    await store.purge_deleted(older_than=timedelta(0))


CALLS: dict[str, Callable[[ObjectStore, Path], Awaitable[Any]]] = {
    "object_store": lambda store, path: store.client.flush(),
    "names": lambda store, path: store.names(),
    "count": lambda store, path: store.count(),
    "exists": call_exists,
    "get_info": lambda store, path: store.get_info("o"),
    "list": lambda store, path: store.list(),
    "iter": call_iter,
    "list_dirs": lambda store, path: store.list_dirs(),
    "status": lambda store, path: store.status(),
    "get": call_get,
    "get_file": call_get_file,
    "open_reader": call_open_reader,
    "get_range": call_get_range,
    "verify": call_verify,
    "watch": call_watch,
    "put": call_put,
    "put_file": call_put_file,
    "create": lambda store, path: store.create("n", BYTES),
    "open_writer": call_open_writer,
    "begin_upload": call_begin_upload,
    "update_meta": lambda store, path: store.update_meta("o", ObjectMeta(name="o", description="d")),
    "rename": call_rename,
    "add_link": call_add_link,
    "add_bucket_link": lambda store, path: store.add_bucket_link("n", "elsewhere"),
    "delete": call_delete,
    "copy": lambda store, path: store.copy("o", "n"),
    "purge_deleted": call_purge_deleted,
    "gc": call_gc,
    "Upload.abort": call_abort,
    "seal": lambda store, path: store.seal(),
}
"""Calls of an opened bucket."""

MANAGED: dict[str, Callable[[JetStreamContext, str], Awaitable[Any]]] = {
    "create_object_store": lambda js, bucket: js.create_object_store(bucket=bucket),
    "update_object_store": lambda js, bucket: js.update_object_store(bucket=bucket, description="d"),
    "delete_object_store": lambda js, bucket: js.delete_object_store(bucket),
    "object_store_names": lambda js, bucket: js.object_store_names(),
    "object_store_statuses": lambda js, bucket: js.object_store_statuses(),
}
"""Calls without one."""


async def prepare(url: str, bucket: str, case: Case, path: Path) -> None:
    """Have the user ``all`` make what a call needs."""
    async with natsproto.connect(url, user="all", password="p") as owner:
        if case.call != "create_object_store":
            store = await owner.jetstream().create_object_store(bucket=bucket)
            await store.put("o", BYTES)
            await store.put("s", b"small")
            if case.call == "gc":
                await owner.request(f"$O.{bucket}.C.orphan", b"nobody's")
            if case.call == "Upload.abort":
                upload = await store.begin_upload("n")
                with suppress(TypeError):
                    await upload.send([BYTES, "no bytes"])  # type: ignore[list-item]
                (path / "token").write_text(upload.token)


async def call(js: JetStreamContext, bucket: str, case: Case, path: Path) -> None:
    """Call it, as a user with few rights."""
    if case.call in MANAGED:
        await MANAGED[case.call](js, bucket)
    else:
        await CALLS[case.call](await js.object_store(bucket), path)
