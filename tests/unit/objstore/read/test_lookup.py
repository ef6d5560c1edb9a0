"""The live object of a name, or the error that says why there is none."""

from __future__ import annotations

import pytest

from objstore import ObjectDeletedError, ObjectNotFoundError
from objstore.bucket.bucket import bind
from objstore.format.codec import MetaDecodeError
from objstore.format.naming import meta_subject
from objstore.read.lookup import deleted, live_info, not_found
from support.memory_server import MemoryServer


@pytest.mark.parametrize("leader", [False, True])
async def test_what_is_there(server: MemoryServer, leader: bool) -> None:
    store = await server.bucket()
    bucket = await bind(server.js, "b")
    with pytest.raises(ObjectNotFoundError) as none:
        await live_info(bucket, "a", leader=leader)
    assert not isinstance(none.value, ObjectDeletedError)
    put = await store.put("a", b"x")
    server.verbs()
    found = await live_info(bucket, "a", leader=leader)
    assert (found.nuid, found.revision) == (put.nuid, put.revision)
    assert ("DIRECT.GET" in server.verbs()) == (not leader)
    await store.delete("a")
    with pytest.raises(ObjectDeletedError) as gone:
        await live_info(bucket, "a", leader=leader)
    assert isinstance(gone.value, ObjectNotFoundError), "who does not care catches one"
    assert gone.value.revision > put.revision
    server.put_raw(meta_subject("b", "bad"), b"no JSON")
    with pytest.raises(MetaDecodeError):
        await live_info(bucket, "bad", leader=leader)


async def test_errors_say_where(server: MemoryServer) -> None:
    store = await server.bucket()
    error = not_found("b", "a")
    assert (error.bucket, error.name) == ("b", "a")
    assert "'a'" in str(error)
    info = await store.put("a", b"")
    gone = deleted(info)
    assert (gone.bucket, gone.name, gone.revision) == ("b", "a", info.revision)
