"""Uploads that can be continued: tokens, and what may be done with the chunks that one stands for."""

from __future__ import annotations

import base64
import json
import traceback
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from objstore import BadObjectMetaError, ObjectStore, OutcomeUnknownError
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.numbered import GOES_ON, GONE
from objstore.format.codec import encode_meta
from objstore.format.naming import meta_subject, new_nuid
from objstore.listing import metas
from objstore.listing.metas import NamesNotSentError
from objstore.write.upload import VERSION, Upload, begin, resume
from objstore.write.upload_holders import Holders
from support.memory_server import MemoryServer, error
from support.uploads import without_secret

DATA = bytes(range(256)) * 10


def begun(bucket: Bucket, **about: Any) -> Upload:
    values = about.get("description"), about.get("filename"), about.get("headers"), about.get("metadata")
    return begin(bucket, "a", values, 100)


async def interrupted(server: MemoryServer, upload: Upload, chunks: int = 5) -> None:
    """A send that has failed after so many chunks."""
    seen = 0

    def hook(subject: str, header: bytes, payload: bytes) -> Any:
        nonlocal seen
        seen += 1
        return error(503, 10077, "maximum bytes exceeded") if seen > chunks else None

    server.on_publish = hook
    with pytest.raises(Exception, match=r"full|exceeded"):
        await upload.send(DATA)
    server.on_publish = None


async def test_the_token_comes_before_the_first_byte(server: MemoryServer, bucket: Bucket) -> None:
    server.verbs()
    upload = begun(bucket, description="d", metadata={"k": "v"})
    assert server.verbs() == []
    again = resume(bucket, "a", upload.token)
    assert (again.nuid, again.name, again.token) == (upload.nuid, "a", upload.token)
    info = await again.send(DATA)
    assert (info.nuid, info.description, info.metadata["k"]) == (upload.nuid, "d", "v")
    assert await upload.stored() == 26
    assert "upload of 'a'" in repr(upload).lower()


@pytest.mark.parametrize("refused", ["", "STREAM.MSG.GET", "DIRECT.GET"])
async def test_where_the_list_of_names_cannot_be_sent(
    server: MemoryServer,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refused: str,
) -> None:
    """Others choose names: then nobody without a consumer can tell whether the chunks were committed."""
    await store.put("other", b"x")
    upload = begun(await bind(server.js, "b"))
    await interrupted(server, upload)

    async def cut(*_: object) -> None:
        raise metas._TooMany("the server closed the connection")

    monkeypatch.setattr(metas, "_subjects", cut)
    server.refused = {"CONSUMER.CREATE", refused}
    bucket = await bind(server.js, "b")
    info = await resume(bucket, "a", upload.token).send(DATA)
    assert "the server cannot send the list of all names" in caplog.text
    assert info.nuid != upload.nuid
    assert server.chunks()[upload.nuid] == 5, "somebody may need them"
    server.refused = set()
    assert await store.get("a") == DATA


@pytest.mark.parametrize("again", [True, False])
async def test_where_it_cannot_be_sent_any_more(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, again: bool
) -> None:
    """It could when the upload began; before the commit another sender is looked for."""
    store = await server.bucket()

    async def cut(*_: object) -> None:
        raise metas._TooMany("the server closed the connection")

    monkeypatch.setattr(metas, "_subjects", cut)
    monkeypatch.setattr(Holders, "certainly_uncommitted", lambda holders, revision: False)
    server.refused = {"CONSUMER.CREATE"}
    upload = begun(await bind(server.js, "b"))
    if not again:
        with pytest.raises(NamesNotSentError):
            await upload.send(iter([DATA]))
        assert not await store.exists("a")
        return
    info = await upload.send(DATA)
    assert "starts over on new chunks: the server cannot send the list of all names" in caplog.text
    assert info.nuid != upload.nuid
    assert await store.get("a") == DATA


async def test_what_is_stored_stays_and_is_gone_on_with(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    upload = begun(bucket)
    await interrupted(server, upload)
    assert await upload.stored() == 5
    first = [each.seq for each in server.stream().of(f"$O.b.C.{upload.nuid}")]
    info = await resume(bucket, "a", upload.token).send(DATA)
    assert [each.seq for each in server.stream().of(f"$O.b.C.{info.nuid}")][:5] == first
    assert await store.get("a") == DATA
    assert server.chunks() == {upload.nuid: 26}


async def test_committed_once(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    upload = begun(bucket)
    info = await upload.send(DATA)
    again = await upload.send(DATA)
    assert (again.revision, again.nuid) == (info.revision, info.nuid)
    assert server.stream().seq == info.revision
    await store.rename("a", "renamed")
    held = await upload.send(DATA)
    assert held.name == "renamed"
    assert not await store.exists("a")


async def test_another_source_is_another_object(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """What is stored is never taken on trust."""
    upload = begun(bucket)
    await interrupted(server, upload)
    other = b"x" * len(DATA)
    await upload.send(other)
    assert await store.get("a") == other


async def test_giving_it_up(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    upload = begun(bucket)
    await interrupted(server, upload)
    await upload.abort()
    await upload.abort()
    assert server.chunks() == {}
    await upload.send(DATA)
    await upload.abort()
    assert await store.get("a") == DATA, "once committed it does nothing"


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("whole", [False, True])
async def test_chunks_that_another_object_names(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, whole: bool, once: bool
) -> None:
    """With their digest it may be a renamed upload; without it, it is somebody's word."""
    upload = begun(bucket)
    await interrupted(server, upload)
    there = b"".join(each.payload for each in server.stream().of(f"$O.b.C.{upload.nuid}"))
    info = await store.put("t", there if whole else b"x")
    forged = replace(info, name="forged", nuid=upload.nuid, size=len(there), chunks=5)
    server.put_raw(meta_subject("b", "forged"), encode_meta(forged))
    with pytest.raises(OutcomeUnknownError, match="they are kept"):
        await upload.abort()
    stored = await upload.send(iter([DATA]) if once else DATA)
    assert (stored.nuid == upload.nuid) is not whole
    assert await store.get("a") == DATA
    assert await upload.stored() == (5 if whole else stored.chunks)


async def test_old_chunks_are_stored_anew(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    upload = begun(bucket)
    await interrupted(server, upload)
    server.ahead = (GOES_ON + GONE) / 2
    other = await upload.send(DATA)
    assert other.nuid != upload.nuid, "somebody may still be going on with them"
    await store.delete("a")
    server.ahead = GONE + timedelta(minutes=1)
    anew = await upload.send(DATA)
    assert anew.nuid == upload.nuid
    assert await store.get("a") == DATA


def document(upload: Upload) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(upload.token)))


@pytest.mark.parametrize(
    "change",
    [
        {"version": VERSION + 1},
        {"nuid": "*"},
        {"nuid": 7},
        {"nuid": new_nuid("another")},  # of an object that is not this one: abort() would purge its chunks
        {"chunk_size": 0},
        {"chunk_size": "100"},
        {"bucket": "other"},
        {"name": "other"},
        {"secret": None},
        {"secret": 7},
        {"secret": ""},
        {"secret": "00" * 15},
        {"secret": "00" * 17},
        {"secret": "zz" * 16},
        {"version": [1]},
    ],
)
async def test_tokens_of_something_else(bucket: Bucket, change: dict[str, Any]) -> None:
    changed = {**document(begun(bucket)), **change}
    token = base64.urlsafe_b64encode(json.dumps(changed).encode()).decode()
    with pytest.raises(BadObjectMetaError, match="token"):
        resume(bucket, "a", token)


async def test_each_token_has_its_secret_and_shows_it_nowhere(bucket: Bucket) -> None:
    one, other = begun(bucket), begun(bucket)
    secret = document(one)["secret"]
    assert len(bytes.fromhex(secret)) == 16
    assert secret != document(other)["secret"]
    assert document(resume(bucket, "a", one.token)) == document(one)
    assert secret not in repr(one)
    for changed in ({"secret": secret[:-1]}, {"name": "other"}, {"nuid": "*"}):
        token = base64.urlsafe_b64encode(json.dumps({**document(one), **changed}).encode()).decode()
        with pytest.raises(BadObjectMetaError) as caught:
            resume(bucket, "a", token)
        shown = "".join(traceback.format_exception(caught.value))
        assert secret[:-1] not in shown
        assert token not in shown


async def test_a_token_needs_the_secret_of_its_version(bucket: Bucket) -> None:
    changed = document(begun(bucket))
    del changed["secret"]
    with pytest.raises(BadObjectMetaError, match="not the token"):
        resume(bucket, "a", base64.urlsafe_b64encode(json.dumps(changed).encode()).decode())


async def test_a_token_of_an_earlier_version(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    upload = resume(bucket, "a", without_secret(begun(bucket).token))
    await interrupted(server, upload)
    again = resume(bucket, "a", upload.token)
    assert "secret" not in document(again)
    info = await again.send(DATA)
    assert info.nuid == upload.nuid
    headers = [each.header for each in server.stream().of(f"$O.b.C.{info.nuid}")]
    assert all(f"Nats-Msg-Id: {info.nuid}.".encode() in header for header in headers[1:])
    assert await store.get("a") == DATA


@pytest.mark.parametrize("token", ["", "no token", "e30=", "W10=", "ä", "A" * (1 << 21), 7, None])
async def test_no_tokens(bucket: Bucket, token: Any) -> None:
    with pytest.raises(BadObjectMetaError, match="not the token of an upload"):
        resume(bucket, "a", token)
