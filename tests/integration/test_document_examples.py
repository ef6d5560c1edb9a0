"""The page of the API is true: its examples run on every server, and what it lists is what there is.

The positions, names and defaults that programs rely on are kept here as data; programs of the usual shapes
(positional arguments, top-level ``await``, ``async for info in store.watch()``) run as well.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import hashlib
import inspect
import re
from datetime import timedelta
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import natsproto
import natsproto as nats
import objstore
from natsproto.aio.connect import connect
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalCluster, LocalServer
from objstore import ObjectLink, ObjectMeta, ObjectMetaOptions, ObjectStore, ObjectStoreConfig

PAGE = Path(__file__).parents[2] / "docs" / "object-store-api.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="no docs here")

CALLS = {
    "put": ["name", "data", "description", "filename", "headers"],
    "get": ["name"],
    "get_info": ["name", "show_deleted"],
    "delete": ["name"],
    "list": [],
    "status": [],
    "seal": [],
    "update_meta": ["name", "meta"],
    "watch": [],
    "object_store": ["bucket"],
    "create_object_store": ["config"],
    "delete_object_store": ["bucket"],
}
"""The calls of the API and their parameters in the order in which they may be given by position."""

REQUIRED = object()
TYPES: dict[str, dict[str, Any]] = {
    "ObjectInfo": {
        **dict.fromkeys(["name", "description", "headers", "size", "chunks", "digest"], REQUIRED),
        **dict.fromkeys(["deleted", "mtime", "nuid", "bucket"], REQUIRED),
        "links": None,
    },
    "ObjectMeta": {"name": REQUIRED, "description": None, "headers": None, "options": None},
    "ObjectMetaOptions": {"link": None, "chunk_size": None, "max_chunk_size": 128 * 1024},
    "ObjectLink": {"bucket": REQUIRED, "name": None},
    "ObjectStoreStatus": dict.fromkeys(
        ["bucket", "description", "ttl", "storage", "replicas", "sealed", "size", "count", "backing_store"],
        REQUIRED,
    ),
    "ObjectStoreConfig": {
        "bucket": REQUIRED,
        "description": None,
        "ttl": None,
        "max_bytes": -1,
        "storage": "file",
        "replicas": 1,
        "placement": None,
        "metadata": None,
    },
}
"""The fields of the API's types by position, with their defaults."""


def default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED if field.default is dataclasses.MISSING else field.default


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def listed() -> list[ast.stmt]:
    """What the page lists: classes and constants."""
    return [statement for block in blocks("pyi") for statement in ast.parse(block).body]


async def run(source: str, scope: dict[str, Any]) -> None:
    """Run a block, top-level ``await`` included."""
    code = compile(source, PAGE.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType)
    result = eval(code, scope)
    if inspect.isawaitable(result):
        await result


@pytest.mark.parametrize("which", ["new_server", "old_server"])
async def test_the_page_runs(which: str, request: pytest.FixtureRequest) -> None:
    """On a server of its own, as every page of docs/ does, but on both ends of the supported range."""
    binary = request.getfixturevalue(which).binary.path
    async with LocalServer(binary=binary) as server, natsproto.connect(server.url) as nc:
        js = nc.jetstream()
        scope: dict[str, Any] = {"__name__": "page", "url": server.url, "nc": nc, "js": js}
        scope["store"] = await js.create_object_store(bucket="docs")
        for block in blocks("python"):
            await run(block, scope)
        async with asyncio.timeout(30):  # the watcher nobody refers to any more stops by itself
            while await js.consumer_names("OBJ_docs"):
                pass


class TestThePageIsComplete:
    def test_calls(self) -> None:
        """Names, positions, kinds and defaults of every call, in full."""
        found = []
        for node in listed():
            if not isinstance(node, ast.ClassDef) or node.name not in ("ObjectStore", "JetStreamContext"):
                continue
            kind = {"ObjectStore": ObjectStore, "JetStreamContext": JetStreamContext}[node.name]
            for method in node.body:
                assert isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef))
                scope: dict[str, Any] = {}
                source = "from __future__ import annotations\n" + ast.unparse(method)
                exec(compile(source, method.name, "exec"), scope)
                real, page = (
                    [
                        (parameter.name, parameter.kind, parameter.default)
                        for parameter in inspect.signature(function).parameters.values()
                    ]
                    for function in (getattr(kind, method.name), scope[method.name])
                )
                assert page == real, method.name
                is_async = inspect.iscoroutinefunction(getattr(kind, method.name))
                assert isinstance(method, ast.AsyncFunctionDef) == is_async, method.name
                found.append(method.name)
        assert sorted(found) == sorted(CALLS)

    def test_types(self) -> None:
        """Fields in their order, their defaults, and which of them are given by keyword."""
        found = set()
        for node in listed():
            if not isinstance(node, ast.ClassDef) or node.name in ("ObjectStore", "JetStreamContext"):
                continue
            page, by_keyword = [], False
            for line in node.body:
                assert isinstance(line, ast.AnnAssign)
                assert isinstance(line.target, ast.Name)
                if line.target.id == "_":
                    by_keyword = True
                    continue
                default = REQUIRED if line.value is None else ast.literal_eval(line.value)
                page.append((line.target.id, by_keyword, default))
            real = [
                (field.name, field.kw_only, default_of(field))
                for field in dataclasses.fields(getattr(objstore, node.name))
            ]
            assert page == real, node.name
            found.add(node.name)
        assert found >= set(TYPES)

    def test_constants(self) -> None:
        found = {}
        for node in listed():
            if isinstance(node, ast.Assign):
                (target,) = node.targets
                assert isinstance(target, ast.Name)
                found[target.id] = ast.literal_eval(node.value)
        assert found == {name: getattr(objstore, name) for name in found}
        chunks, pattern = {"DEFAULT_CHUNK_SIZE", "MAX_CHUNK_SIZE"}, {"VALID_BUCKET_RE"}
        templates = {"OBJ_ALL_CHUNKS_PRE_TEMPLATE", "OBJ_ALL_META_PRE_TEMPLATE", "OBJ_STREAM_TEMPLATE"}
        assert set(found) == chunks | pattern | templates

    def test_errors(self) -> None:
        """Every error it names is one of the store's."""
        names = set(re.findall(r"`([A-Z]\w+(?:Error|Exists))`", PAGE.read_text()))
        assert {"ObjectNotFoundError", "ObjectDeletedError", "ObjectAlreadyExists"} <= names
        assert {"BadObjectMetaError", "BadBucketError", "BucketNotFoundError"} <= names
        for name in names:
            assert issubclass(getattr(objstore, name), natsproto.NatsError)


class TestWhatProgramsRelyOn:
    @pytest.mark.parametrize("name", sorted(CALLS))
    def test_positions(self, name: str) -> None:
        kind = ObjectStore if hasattr(ObjectStore, name) else JetStreamContext
        parameters = list(inspect.signature(getattr(kind, name)).parameters.values())[1:]
        by_position = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert by_position == CALLS[name]

    @pytest.mark.parametrize("name", sorted(TYPES))
    def test_fields(self, name: str) -> None:
        """Additions come after them, by keyword only."""
        by_position = [field for field in dataclasses.fields(getattr(objstore, name)) if not field.kw_only]
        assert [field.name for field in by_position] == list(TYPES[name])
        for field in by_position:
            assert default_of(field) == TYPES[name][field.name], field.name

    def test_values(self) -> None:
        assert objstore.DEFAULT_CHUNK_SIZE == 128 * 1024
        assert objstore.MAX_CHUNK_SIZE == 1024 * 1024
        assert objstore.VALID_BUCKET_RE == r"^[a-zA-Z0-9_-]+$"
        assert objstore.OBJ_ALL_CHUNKS_PRE_TEMPLATE.format(bucket="b") == "$O.b.C.>"
        assert objstore.OBJ_ALL_META_PRE_TEMPLATE.format(bucket="b") == "$O.b.M.>"
        assert objstore.OBJ_STREAM_TEMPLATE.format(bucket="b") == "OBJ_b"


async def test_connect_put_get_delete(
    server: LocalServer, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is awaited, not entered, and connects to the default address."""
    monkeypatch.setattr(connect.__init__, "__defaults__", (server.url,))
    source = tmp_path / "source.bin"
    source.write_bytes(bytes(range(256)) * 1000)

    nc = await nats.connect()
    try:
        js = nc.jetstream()
        os = await js.object_store(store.bucket)
        with open(source, "rb") as f:
            data = f.read()
        headers = {"Content-Type": "application/octet-stream", "Owner": "ops"}
        put = await os.put(
            name="in/a b.bin", data=data, description="words", filename="b.bin", headers=headers
        )
        assert (put.name, put.size, put.chunks) == ("in/a b.bin", 256_000, 2)
        info = await os.get_info("in/a b.bin")
        assert (info.description, info.filename, info.headers) == ("words", "b.bin", headers)
        assert info.mtime.utcoffset() == timedelta(0)
        got = await os.get("in/a b.bin")
        assert got == data
        assert hashlib.sha256(got).hexdigest() == info.digest.replace("SHA-256=", "")
        assert await os.delete("in/a b.bin") is True
        with pytest.raises(objstore.ObjectDeletedError):
            await os.get_info("in/a b.bin")
        assert (await os.get_info("in/a b.bin", True)).deleted
        with pytest.raises(objstore.ObjectNotFoundError):
            await os.delete("never there")
    finally:
        await nc.close()


async def test_arguments_by_position(store: ObjectStore) -> None:
    await store.put("a", b"1", "description", "file.txt", {"K": "v"})
    info = await store.get_info("a", False)
    assert (info.description, info.filename, info.headers) == ("description", "file.txt", {"K": "v"})


async def test_list_status_seal(store: ObjectStore) -> None:
    await store.put("a", b"x" * 10, "the first")
    await store.put("b", b"")
    assert [(obj.name, obj.size, obj.description) for obj in await store.list()] == [
        ("a", 10, "the first"),
        ("b", 0, None),
    ]
    status = await store.status()
    assert (status.bucket, status.count, status.backing_store) == (store.bucket, 2, "JetStream")
    assert status.size >= 10
    assert await store.seal() is True
    with pytest.raises(objstore.BucketSealedError):
        await store.put("c", b"no")
    assert (await store.status()).sealed


async def test_metadata_changes_the_content_does_not(store: ObjectStore) -> None:
    before = await store.put("report", b"content", headers={"Author": "nobody"})
    meta = ObjectMeta(name="report", description="second edition", headers={"Author": "Kim", "State": "new"})
    updated = await store.update_meta("report", meta)
    assert updated.name == "report"
    info = await store.get_info("report")
    assert (info.description, info.headers) == ("second edition", {"Author": "Kim", "State": "new"})
    assert (info.digest, info.size, info.nuid) == (before.digest, before.size, before.nuid)
    assert await store.get("report") == b"content"


async def test_watch_needs_no_await(store: ObjectStore) -> None:
    await store.put("there", b"12345")
    changes: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()

    async def watch_objects() -> None:
        async for info in store.watch():
            changes.put_nowait((info.name, info.deleted))

    watching = asyncio.create_task(watch_objects())
    async with asyncio.timeout(30):
        assert await changes.get() == ("there", False)
        await store.put("new", b"1")
        assert await changes.get() == ("new", False)
        await store.delete("there")
        assert await changes.get() == ("there", True)
    watching.cancel()  # such a loop never ends by itself
    with pytest.raises(asyncio.CancelledError):
        await watching
    async with asyncio.timeout(30):  # the watcher nobody refers to any more stops by itself
        while await store.js.consumer_names(f"OBJ_{store.bucket}"):
            pass


async def test_watch_may_be_awaited(store: ObjectStore) -> None:
    await store.put("there", b"")
    watcher = await store.watch()
    async with asyncio.timeout(30):
        async for info in watcher:
            assert info.name == "there"
            break
    await watcher.stop()


@pytest.mark.cluster
async def test_buckets() -> None:
    """A bucket with three replicas needs three servers."""
    async with LocalCluster(3) as cluster, natsproto.connect(cluster.urls) as client:
        js = client.jetstream()
        await js.create_object_store(bucket="outdated")
        config = ObjectStoreConfig(
            bucket="replicated",
            description="kept three times",
            max_bytes=10 * 1024**3,
            storage="file",
            replicas=3,
            ttl=timedelta(days=200),
        )
        await js.create_object_store(config=config)
        small = await js.create_object_store(bucket="small", max_bytes=1024**3, ttl=timedelta(hours=24))
        status = await (await js.object_store("replicated")).status()
        assert (status.replicas, status.ttl, status.max_bytes) == (3, timedelta(days=200), 10 * 1024**3)
        assert (status.storage, status.description) == ("file", "kept three times")
        assert (await small.status()).ttl == timedelta(hours=24)
        assert await js.delete_object_store("outdated") is True
        with pytest.raises(objstore.BucketNotFoundError):
            await js.object_store("outdated")
        with pytest.raises(objstore.BadBucketError):
            await js.create_object_store()


async def test_large_objects(store: ObjectStore) -> None:
    data = b"x" * (10 * 1024 * 1024)
    info = await store.put("large", data)
    assert info.chunks == 80
    assert await store.get("large") == data


async def test_link_by_options(store: ObjectStore) -> None:
    await store.put("target", b"the report")
    link = ObjectMetaOptions(link=ObjectLink(bucket=store.bucket, name="target"))
    await store.update_meta("current", ObjectMeta(name="current", description="a link", options=link))
    assert await store.get("current") == b"the report"
    info = await store.get_info("current")
    assert (info.links, info.digest) == ([f"{store.bucket}/target"], "")


def test_everything_comes_with_one_star() -> None:
    scope: dict[str, Any] = {}
    exec("from objstore import *", scope)
    assert {*TYPES, "Placement", "ObjectStore", "DEFAULT_CHUNK_SIZE", "BadBucketError"} <= set(scope)
