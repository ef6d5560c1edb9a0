"""D12: meta messages as other clients write them: each lists, informs and deletes; a live one is readable."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import Any

import pytest

from objstore import LinkError, ObjectDeletedError, ObjectMeta, ObjectNotFoundError, ObjectStore
from support.objects import assert_exact, chunk_counts, chunk_subject, meta_subject, wire_digest

EVERY_SERVER = True
DATA = b"0123456789" * 5
DIGEST = wire_digest(DATA)
BASE: dict[str, Any] = {
    "name": "n",
    "bucket": "{bucket}",
    "nuid": "nuid0123456789abcdefgh",
    "size": 50,
    "chunks": 1,
    "digest": DIGEST,
    "options": {"max_chunk_size": 131072},
}
ZERO_TIME = "0001-01-01T00:00:00Z"
ISO = "2026-11-22T14:15:10.159027+00:00"

LIVE: dict[str, dict[str, Any]] = {
    "py put": {"mtime": ISO, "deleted": False},
    "py put with headers": {"mtime": ISO, "deleted": False, "headers": {"K": "V"}},
    "rs put": {
        "description": None,
        "metadata": {"m": "n"},
        "headers": {"K": ["V", "2"]},
        "options": {"link": None, "max_chunk_size": 24576},
        "mtime": "2026-11-22T14:15:10.194695102Z",
    },
    "rs put without": {"description": None, "metadata": None, "headers": None, "mtime": ISO},
    "old rs headers": {"headers": {"inner": {"K": ["V"]}}, "mtime": ISO},
    "go put": {"mtime": ZERO_TIME},
    "js put": {"description": "", "mtime": "2026-11-22T14:15:10.159Z", "deleted": False, "revision": 5},
    "java put": {},
    "py empty time": {"mtime": ""},
    "unpadded digest": {"digest": DIGEST.rstrip("=")},
    "standard digest": {"digest": "SHA-256=" + base64.b64encode(hashlib.sha256(DATA).digest()).decode()},
    "lower-case digest": {"digest": DIGEST.replace("SHA", "sha")},
    "no options": {"options": None},
    "unknown keys": {"future": [1, {"a": None}], "options": {"max_chunk_size": 131072, "x": 1}},
    "another bucket": {"bucket": "elsewhere"},
}


async def store_raw(store: ObjectStore, subject: str, document: dict[str, Any], rollup: bool = True) -> None:
    payload = json.dumps(document).replace("{bucket}", store.bucket).encode()
    await store.js.publish(subject, payload, headers={"Nats-Rollup": "sub"} if rollup else {})


async def put_raw(store: ObjectStore, changes: dict[str, Any], subject: str | None = None) -> None:
    await store.js.publish(chunk_subject(store, BASE["nuid"]), DATA)
    await store_raw(store, subject or meta_subject(store, changes.get("name", "n")), {**BASE, **changes})


@pytest.mark.parametrize("kind", LIVE)
async def test_live(store: ObjectStore, kind: str) -> None:
    await put_raw(store, LIVE[kind])
    info = await store.get_info("n")
    assert [info] == await store.list()
    assert (info.size, info.chunks, info.deleted, info.bucket) == (50, 1, False, store.bucket)
    assert info.digest == "SHA-256=" + hashlib.sha256(DATA).hexdigest()
    if LIVE[kind].get("headers"):
        assert info.headers is not None
        assert info.headers["K"] == "V"
    assert await store.get("n") == DATA
    updated = await store.update_meta("n", ObjectMeta("n", "described"))
    assert updated.headers == info.headers
    assert await store.get("n") == DATA
    await store.update_meta("n", ObjectMeta("renamed"))
    assert await store.get("renamed") == DATA
    await store.delete("renamed")
    assert await chunk_counts(store) == {}
    await put_raw(store, LIVE[kind])
    await store.put("n", b"over it")
    assert await store.get("n") == b"over it"
    await assert_exact(store)


DELETED: dict[str, dict[str, Any]] = {
    "py delete": {"size": 0, "mtime": "", "chunks": 0, "digest": "", "deleted": True},
    "rs delete": {"size": 0, "chunks": 0, "deleted": True, "mtime": ISO, "metadata": {}, "headers": None},
    "go delete": {"size": 0, "chunks": 0, "deleted": True, "mtime": ZERO_TIME, "digest": None},
    "js delete": {"size": 0, "chunks": 0, "deleted": True, "revision": 3, "digest": ""},
    "sizes kept": {"deleted": True},
}


@pytest.mark.parametrize("kind", DELETED)
async def test_deleted(store: ObjectStore, kind: str) -> None:
    await store_raw(store, meta_subject(store, "n"), {**BASE, **DELETED[kind]})
    assert await store.list() == []
    (info,) = await store.list(include_deleted=True)
    assert (info.deleted, info.digest) == (True, "")
    for call in (store.get("n"), store.get_info("n"), store.delete("n")):
        with pytest.raises(ObjectDeletedError):
            await call
    await store.create("n", b"again")
    assert await store.get("n") == b"again"


LINKS: dict[str, dict[str, Any]] = {
    "rs link": {
        "name": "l",
        "description": None,
        "metadata": {},
        "headers": None,
        "options": {"link": {"name": "n", "bucket": "{bucket}"}, "max_chunk_size": None},
        "bucket": "{bucket}",
        "nuid": "x",
        "size": 0,
        "chunks": 0,
        "mtime": ISO,
    },
    "go link": {
        "name": "l",
        "options": {"link": {"bucket": "{bucket}", "name": "n"}},
        "bucket": "{bucket}",
        "nuid": "x",
        "size": 0,
        "chunks": 0,
        "mtime": ZERO_TIME,
    },
    "js link": {"name": "l", "bucket": "other", "options": {"link": {"bucket": "{bucket}", "name": "n"}}},
}
BUCKET_LINKS: dict[str, dict[str, Any]] = {
    "rs": {"bucket": "other", "name": None},
    "go": {"bucket": "other"},
    "py": {"bucket": "other", "name": ""},
}


@pytest.mark.parametrize("kind", LINKS)
async def test_links(store: ObjectStore, kind: str) -> None:
    """T8: a js link has neither nuid nor size."""
    await put_raw(store, {})
    await store_raw(store, meta_subject(store, "l"), LINKS[kind], rollup=kind != "js link")
    assert await store.get("l") == DATA
    assert (await store.get_info("l")).links == [f"{store.bucket}/n"]
    assert [info.name for info in await store.list()] == ["n", "l"]
    await store.delete("l")
    with pytest.raises(ObjectNotFoundError):
        await store.get("l")
    assert await store.get("n") == DATA


@pytest.mark.parametrize("kind", BUCKET_LINKS)
async def test_bucket_links(store: ObjectStore, kind: str) -> None:
    document = {**LINKS["go link"], "options": {"link": BUCKET_LINKS[kind]}}
    await store_raw(store, meta_subject(store, "l"), document)
    assert (await store.get_info("l")).links == ["other"]
    with pytest.raises(LinkError):
        await store.get("l")
    await store.delete("l")
    assert await store.list() == []


@pytest.mark.parametrize("encode", ["java", "unpadded"])
async def test_other_subjects(store: ObjectStore, encode: str) -> None:
    """T9: standard base64, or none of its padding."""
    name = "?>?>ÿ" if encode == "java" else "?>?>ÿx"
    raw = base64.b64encode(name.encode()) if encode == "java" else base64.urlsafe_b64encode(name.encode())
    token = raw.decode() if encode == "java" else raw.decode().rstrip("=")
    assert f"$O.{store.bucket}.M.{token}" != meta_subject(store, name)
    await put_raw(store, {"name": name}, f"$O.{store.bucket}.M.{token}")
    assert [info.name for info in await store.list()] == [name]
    assert await store.get(name) == DATA
    await store.delete(name)
    assert await store.list() == []
    assert await chunk_counts(store) == {}


async def test_empty_object_of_net(store: ObjectStore) -> None:
    """T10, T11: nats.net leaves out zeros and publishes one empty chunk."""
    digest = wire_digest(b"")
    document = {key: value for key, value in BASE.items() if key not in ("size", "chunks")}
    await store.js.publish(chunk_subject(store, BASE["nuid"]), b"")
    await store_raw(store, meta_subject(store, "n"), {**document, "digest": digest, "mtime": ISO})
    async with asyncio.timeout(7):
        assert await store.get("n") == b""
        await store.delete("n")
    # The writer did not count it; what it names is removed with the object nevertheless.
    assert await chunk_counts(store) in ({}, {BASE["nuid"]: 1})
