"""Every example of the API document runs as written.

The two kinds of import lines (``import nats``, ``from nats.js.api import …``) are replaced by
``import natsproto as nats`` and ``from objstore import *``; nothing else is changed.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import hashlib
import inspect
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import natsproto
import objstore
from natsproto.aio.client import connect
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalCluster, LocalServer
from objstore import ObjectStore

DOCUMENT = Path(__file__).parent.parent / "documents" / "object-store-api.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
REPORT = "documents/report-2024.pdf"


def example(beginning: str) -> str:
    """The one block that begins so, with its import lines replaced."""
    (block,) = [block for block in BLOCKS if block.startswith(beginning)]
    lines = []
    for line in block.splitlines():
        if line == "import nats" or line.startswith("from nats.js.api import"):
            line = "import natsproto as nats; from objstore import *"
        lines.append(line)
    return "\n".join(lines)


def namespace(**names: Any) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "example"}
    exec("import natsproto as nats\nfrom objstore import *\nimport asyncio", scope)
    scope.update(names)
    return scope


async def run(source: str, scope: dict[str, Any]) -> None:
    """Run a block, top-level ``await`` included."""
    code = compile(source, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType)
    result = eval(code, scope)
    if inspect.isawaitable(result):
        await result


@pytest.fixture
async def file_storage(js: JetStreamContext) -> AsyncIterator[ObjectStore]:
    """A fresh bucket of the name the examples use."""
    store = await js.create_object_store(bucket="file-storage")
    yield store
    await js.delete_object_store("file-storage")


async def test_operations(
    file_storage: ObjectStore,
    server: LocalServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The example connects to the default address; the server under test stands in for it.
    monkeypatch.setattr(connect, "__defaults__", (server.url,))
    monkeypatch.chdir(tmp_path)
    data = bytes(range(256)) * 1000
    Path("document.pdf").write_bytes(data)
    scope = namespace()
    await run(example("import asyncio\nimport nats"), scope)
    opened: list[Any] = []
    original = natsproto.Client.jetstream

    def recording(self: Any, **options: Any) -> JetStreamContext:
        opened.append(self)
        return original(self, **options)

    monkeypatch.setattr(natsproto.Client, "jetstream", recording)
    await scope["main"]()
    for client in opened:
        await client.close()
    output = capsys.readouterr().out
    assert f"Stored object: {REPORT}" in output
    assert f"Retrieved {len(data)} bytes" in output
    assert f"Digest: SHA-256={hashlib.sha256(data).hexdigest()}" in output
    with pytest.raises(objstore.ObjectDeletedError):
        await file_storage.get(REPORT)


async def test_listing_status_and_seal(store: ObjectStore, capsys: pytest.CaptureFixture[str]) -> None:
    await store.put("a", b"x" * 10, "the first")
    await store.put("b", b"")
    await run(example("# List all objects"), namespace(os=store))
    output = capsys.readouterr().out
    assert "Object: a\n Size: 10 bytes" in output
    assert "Description: the first" in output
    assert "Objects: 2" in output
    with pytest.raises(objstore.BucketSealedError):
        await store.put("c", b"no")
    assert (await store.status()).sealed


async def test_metadata(store: ObjectStore, capsys: pytest.CaptureFixture[str]) -> None:
    before = await store.put(REPORT, b"content", headers={"Author": "nobody"})
    await run(example("from nats.js.api import ObjectMeta\n\n# Update"), namespace(os=store))
    assert f"Updated metadata for {REPORT}" in capsys.readouterr().out
    info = await store.get_info(REPORT)
    assert info.description == "Updated quarterly report 2024"
    assert info.headers == {
        "Content-Type": "application/pdf",
        "Author": "Alice Johnson",
        "Department": "Sales",
        "Status": "Final",
        "Version": "2.0",
    }
    assert (info.digest, info.size, info.nuid) == (before.digest, before.size, before.nuid)
    assert await store.get(REPORT) == b"content"


async def test_watching(store: ObjectStore) -> None:
    await store.put("there", b"12345")
    lines: asyncio.Queue[str] = asyncio.Queue()
    scope = namespace(os=store, print=lines.put_nowait)
    watching = asyncio.create_task(run(example("# Watch for object store changes"), scope))

    async def expect(text: str) -> None:
        async with asyncio.timeout(10):
            while await lines.get() != text:
                pass

    await expect("Object changed: there")
    await expect(" Size: 5 bytes")
    await store.put("new", b"1")
    await expect("Object changed: new")
    await store.delete("there")
    await expect("Object deleted: there")
    watching.cancel()  # the loop of the example never ends by itself
    with pytest.raises(asyncio.CancelledError):
        await watching
    async with asyncio.timeout(10):  # the watcher nobody refers to any more stops by itself
        while await store.js.consumer_names(f"OBJ_{store.bucket}"):
            pass


@pytest.mark.cluster
async def test_buckets() -> None:
    """The 365-day bucket with three replicas needs three servers."""
    async with LocalCluster(3) as cluster, natsproto.connect(cluster.urls) as client:
        js = client.jetstream()
        await js.create_object_store(bucket="old-files")
        scope = namespace(js=js)
        await run(example("from nats.js.api import ObjectStoreConfig"), scope)
        assert scope["os"].bucket == "media-files"
        status = await scope["os"].status()
        assert status.replicas == 3
        assert status.ttl is not None
        assert status.ttl.days == 365
        assert (status.storage, status.description) == ("file", "Media file storage")
        assert status.max_bytes == 10 * 1024**3
        temporary = await (await js.object_store("temp-files")).status()
        assert temporary.ttl is not None
        assert temporary.ttl.total_seconds() == 24 * 3600
        with pytest.raises(objstore.BucketNotFoundError):
            await js.object_store("old-files")


async def test_large_file(store: ObjectStore, capsys: pytest.CaptureFixture[str]) -> None:
    await run(example("# Store large file"), namespace(os=store))
    assert "File stored in 80 chunks" in capsys.readouterr().out


async def test_integrity(store: ObjectStore, capsys: pytest.CaptureFixture[str]) -> None:
    await store.put("document.pdf", b"%PDF-1.7 " * 50_000)
    await run(example("# Object info includes content digest"), namespace(os=store))
    assert "Content digest: SHA-256=" in capsys.readouterr().out


async def test_link(file_storage: ObjectStore) -> None:
    await file_storage.put(REPORT, b"the report")
    await run(example("from nats.js.api import ObjectMeta, ObjectLink"), namespace(os=file_storage))
    assert await file_storage.get("documents/current-report.pdf") == b"the report"
    info = await file_storage.get_info("documents/current-report.pdf")
    assert info.links == [f"file-storage/{REPORT}"]
    assert info.digest == ""


def reference_types() -> dict[str, Any]:
    """The document's dataclasses, built from the document."""
    scope: dict[str, Any] = {"Placement": object}
    source = example("from dataclasses import dataclass")
    exec(compile("from __future__ import annotations\n" + source, "types", "exec"), scope)
    return {name: kind for name, kind in scope.items() if dataclasses.is_dataclass(kind)}


@pytest.mark.parametrize("name", sorted(reference_types()))
def test_data_types(name: str) -> None:
    """Names, order and defaults of the document; additions come after them or by keyword only."""
    ours = dataclasses.fields(getattr(objstore, name))
    for wanted, got in zip(dataclasses.fields(reference_types()[name]), ours, strict=False):
        assert got.name == wanted.name
        assert not got.kw_only
        if wanted.default is not dataclasses.MISSING:
            assert got.default == wanted.default
    wanted_names = [field.name for field in dataclasses.fields(reference_types()[name])]
    assert [field.name for field in ours][: len(wanted_names)] == wanted_names


def test_signatures() -> None:
    """The documented parameters keep their names and positions."""
    for kind, beginning in (
        (ObjectStore, "class ObjectStore:"),
        (JetStreamContext, "class JetStreamContext:"),
    ):
        for block in BLOCKS:
            if not block.startswith(beginning):
                continue
            tree = ast.parse(block)
            (cls,) = tree.body
            assert isinstance(cls, ast.ClassDef)
            for method in cls.body:
                assert isinstance(method, ast.AsyncFunctionDef)
                parameters = list(inspect.signature(getattr(kind, method.name)).parameters)
                wanted = [argument.arg for argument in method.args.args]
                assert parameters[: len(wanted)] == wanted, method.name


def test_constants() -> None:
    """Values of the document, except the three templates, which hold real subjects (decided so)."""
    scope: dict[str, Any] = {}
    exec(example("# Object store templates"), scope)
    for name in ("DEFAULT_CHUNK_SIZE", "MAX_CHUNK_SIZE", "VALID_BUCKET_RE"):
        assert getattr(objstore, name) == scope[name]
    assert objstore.OBJ_ALL_CHUNKS_PRE_TEMPLATE.format(bucket="b") == "$O.b.C.>"
    assert objstore.OBJ_ALL_META_PRE_TEMPLATE.format(bucket="b") == "$O.b.M.>"
    assert objstore.OBJ_STREAM_TEMPLATE.format(bucket="b") == "OBJ_b"
