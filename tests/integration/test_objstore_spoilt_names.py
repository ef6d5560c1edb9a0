"""Names whose meta message cannot be read: which verbs take them, and what the others say."""

from __future__ import annotations

import base64
import json
import logging

import pytest

from objstore import (
    BadObjectMetaError,
    InvalidMeta,
    ObjectAlreadyExists,
    ObjectNotFoundError,
    ObjectStore,
    RevisionConflictError,
)
from objstore.format.naming import meta_subject


async def spoil(store: ObjectStore, name: str) -> int:
    return (await store.js.publish(meta_subject(store.bucket, name), b"{")).seq


async def test_no_link_takes_its_place(store: ObjectStore) -> None:
    target = await store.put("target", b"x")
    await spoil(store, "spoilt")
    with pytest.raises(ObjectAlreadyExists, match="cannot be read; delete it first"):
        await store.add_link("spoilt", target)


async def test_delete_of_one_revision(store: ObjectStore) -> None:
    revision = await spoil(store, "spoilt")
    with pytest.raises(RevisionConflictError) as caught:
        await store.delete("spoilt", if_revision=revision + 1)
    assert (caught.value.expected, caught.value.current) == (revision + 1, revision)
    await store.delete("spoilt", if_revision=revision)
    with pytest.raises(ObjectNotFoundError):
        await store.get_info("spoilt")


async def test_a_half_done_rename_to_it(store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    """What stands at the new name is nobody's end of the rename: ``gc`` takes the mark off."""
    await store.put("old", b"bytes")
    subject = meta_subject(store.bucket, "old")
    message = await store.js.get_message(f"OBJ_{store.bucket}", last_by_subject=subject)
    document = json.loads(message.data)
    document["metadata"] = {"natsproto.renaming": "spoilt"}
    await store.js.publish(subject, json.dumps(document).encode(), headers={"Nats-Rollup": "sub"})
    await spoil(store, "spoilt")
    with caplog.at_level(logging.ERROR):
        report = await store.gc()
    assert report.renames == []
    assert [each.subject for each in report.unreadable] == [meta_subject(store.bucket, "spoilt")]
    assert await store.get("old") == b"bytes"


async def test_what_iter_tells_of_it(store: ObjectStore) -> None:
    await store.put("whole", b"x")
    revision = await spoil(store, "spoilt")
    told: list[InvalidMeta] = []
    assert [info.name async for info in store.iter(on_invalid=told.append)] == ["whole"]
    assert [meta.revision for meta in told] == [revision]


async def test_an_upload_of_that_name(store: ObjectStore) -> None:
    """Its chunks are another name's by now, and the meta of its own name does not say that it was renamed."""
    upload = await store.begin_upload("mine")
    info = await upload.send(b"the bytes")
    subject = meta_subject(store.bucket, "mine")
    message = await store.js.get_message(f"OBJ_{store.bucket}", last_by_subject=subject)
    document = json.loads(message.data)
    document["name"] = "theirs"
    await store.js.publish(meta_subject(store.bucket, "theirs"), json.dumps(document).encode())
    await spoil(store, "mine")
    assert repr(upload) == f"<Upload of 'mine' to {store.bucket!r}, nuid {info.nuid}>"
    await (await store.begin_upload("mine", token=upload.token)).send(b"the bytes")
    assert await store.get("mine") == b"the bytes"


@pytest.mark.parametrize("change", [{"version": 99}, {"nuid": "a.b"}, {"name": "other"}])
async def test_tokens_of_something_else(store: ObjectStore, change: dict[str, object]) -> None:
    token = (await store.begin_upload("mine")).token
    document = json.loads(base64.urlsafe_b64decode(token)) | change
    forged = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()
    with pytest.raises(BadObjectMetaError):
        await store.begin_upload("mine", token=forged)
