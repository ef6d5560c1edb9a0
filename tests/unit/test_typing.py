"""What type checkers say: of the packages themselves, and of a program that uses them."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest

from natsproto.server import LocalCluster, LocalServer
from natsproto.server.cluster import ServerOptions
from objstore import ObjectStore, ObjectStoreConfig
from objstore.format.models import BucketFields
from objstore.write.put import PutOptions
from support.imports import PACKAGES, ROOT
from support.skips import left_out

MOST_ANY = 40
MOST_IGNORED = 8
LEAST_COMPLETE = 0.99

USER = """\
import asyncio
from datetime import timedelta

import natsproto
import natsproto.server
import objstore
import objstore.sync

natsproto.connect, natsproto.Client, natsproto.errors.NatsError, natsproto.wire.Parser, natsproto.__version__
natsproto.server.LocalServer, natsproto.testing.FaultProxy, natsproto.jetstream
natsproto.conect  # wrong
natsproto.wire.Parsr  # wrong
objstore.ObjectStore, objstore.errors.LinkError, objstore.manager.open_bucket, objstore.format
objstore.ObjectStor  # wrong

def on_error(error: natsproto.NatsError) -> None: ...
async def on_any_error(error: Exception) -> None: ...
def on_change() -> None: ...
def progress(done: int, total: int | None) -> None: ...

natsproto.connect("nats://a", error_cb=on_error, closed_cb=on_change, lame_duck_cb=asyncio.Event().set)
natsproto.connect(["nats://a"], error_cb=on_any_error)
natsproto.connect(error_cb=on_change)  # wrong
natsproto.connect(disconnected_cb=on_error)
natsproto.connect(disconnected_cb=on_any_error)
natsproto.connect(disconnected_cb=asyncio.Event().set)
natsproto.connect(disconnected_cb=progress)  # wrong
natsproto.connect(reconnected_cb=on_error)  # wrong
natsproto.connect(user_name="me")  # wrong
natsproto.server.LocalCluster(3, jetstream=False, tls={"cert_file": "a", "key_file": "b"})
natsproto.server.LocalCluster(3, jetstraem=False)  # wrong
natsproto.server.LocalServer(tls={"cert": "a"})  # wrong

async def use() -> None:
    client: natsproto.Client = await natsproto.connect()
    async with natsproto.connect() as nc:
        js = nc.jetstream()
        store = await js.create_object_store(bucket="b", replicas=3, ttl=timedelta(hours=1))
        await js.create_object_store(bucket="b", replica=3)  # wrong
        await js.create_object_store("b", replicas=3)
        await js.object_store("b", create=True)
        await js.update_object_store(bucket="b", ttl=3600)  # wrong
        info: objstore.ObjectInfo = await store.put("name", b"data", chunk_size=1024, progress=progress)
        await store.put("name", "data")  # wrong
        await store.put("name", b"data", chunksize=1024)  # wrong
        await store.put("name", b"data", progress=on_change)  # wrong
        await store.put_file("name", "path", headers={"a": ["b"]}, metadata={"a": "b"}, ttl=None)
        await store.put_file("name", "path", chunk_size="big")  # wrong
        async with store.open_writer("name", window=1 << 20, atomic=True) as writer:
            await writer.write(b"data")
        store.open_writer("name", atomics=True)  # wrong
        data: bytes = await store.get("name")
        size: str = (await store.info("name")).size  # wrong
        task: asyncio.Task[objstore.ObjectInfo] = asyncio.create_task(store.put("name", b""))

def use_blocking() -> None:
    objstore.sync.connect(user_name="me")  # wrong
    with objstore.sync.connect("nats://a", name="me", error_cb=on_error) as nc:
        store = nc.object_store("b", create=True)
        info: objstore.ObjectInfo = store.put("name", (b"data" for _ in range(3)), chunk_size=1024)
        store.put("name", "data")  # wrong
        store.put("name", b"data", chunksize=1024)  # wrong
        store.open_writer("name", atomics=True)  # wrong
        data: bytes = store.get("name")
        text: str = store.get("name")  # wrong
        lengths: list[int] = [len(piece) for piece in store.open_reader("name")]
        names: list[str] = [info.name for info in store.watch()] + [info.name for info in store.iter()]
        for msg in nc.subscribe("a", queue="b").messages(timeout=1.0):
            msg.respond(msg.data)
        nc.jetstream().create_object_store("b", replicas=3, replica=1)  # wrong
"""
WRONG = [number for number, line in enumerate(USER.splitlines(), 1) if line.endswith("# wrong")]


def tokens() -> Iterator[tokenize.TokenInfo]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            with path.open("rb") as file:
                yield from tokenize.tokenize(file.readline)


def test_few_values_may_be_anything() -> None:
    """Both numbers may only fall."""
    found = Counter(
        "Any" if token.type == tokenize.NAME else "ignored"
        for token in tokens()
        if (token.type == tokenize.NAME and token.string == "Any")
        or (token.type == tokenize.COMMENT and "type: ignore" in token.string)
    )
    assert found["Any"] <= MOST_ANY
    assert found["ignored"] <= MOST_IGNORED


def keywords(function: object) -> set[str]:
    assert callable(function)
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


def test_keywords_that_are_handed_on() -> None:
    """What is named twice is the same; type checkers see that the types fit."""
    assert set(PutOptions.__annotations__) == keywords(ObjectStore.put)
    assert set(BucketFields.__annotations__) == {field.name for field in fields(ObjectStoreConfig)}
    assert set(ServerOptions.__annotations__) == keywords(LocalServer) - keywords(LocalCluster) - {
        "store_dir"
    }


def checker(name: str) -> list[str]:
    if find_spec(name) is None:
        left_out(f"{name} is in the extra 'dev', and .ci/run tests with it")
    return [sys.executable, "-m", name]


@pytest.fixture
def user(tmp_path: Path) -> Path:
    path = tmp_path / "user.py"
    path.write_text(USER)
    return path


def test_mypy_sees_what_is_wrong_in_a_program(user: Path) -> None:
    command = [*checker("mypy"), "--no-error-summary", "--hide-error-context", str(user)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    found = re.findall(r"^(.*):(\d+): error: ", done.stdout, re.MULTILINE)
    assert sorted({int(line) for _, line in found}) == WRONG, done.stdout + done.stderr
    assert {Path(name).name for name, _ in found} == {user.name}


def pyright(*arguments: str) -> dict[str, object]:
    """Its report. It asks the Python on PATH where packages are, and follows no editable installation."""
    command = [*checker("pyright"), "--outputjson", *arguments]
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


def test_pyright_sees_what_is_wrong_in_a_program(user: Path) -> None:
    found = pyright(str(user))["generalDiagnostics"]
    assert isinstance(found, list)
    errors = [each for each in found if each["severity"] == "error"]
    assert sorted({each["range"]["start"]["line"] + 1 for each in errors}) == WRONG, errors


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_complete(package: str) -> None:
    """Of every public name, as ``pyright --verifytypes`` counts them."""
    found = pyright("--verifytypes", package, "--ignoreexternal")["typeCompleteness"]
    assert isinstance(found, dict)
    assert Path(found["packageRootDirectory"]) == ROOT / package
    unknown = [each["name"] for each in found["symbols"] if each["isExported"] and not each["isTypeKnown"]]
    assert found["completenessScore"] >= LEAST_COMPLETE, unknown
