"""The live object of a name, or the error that says why there is none."""

from __future__ import annotations

from typing import Any

import pytest

from objstore import ObjectDeletedError, ObjectMeta, ObjectNotFoundError
from objstore.bucket.binding import bind
from objstore.format.codec import MetaDecodeError
from objstore.format.naming import meta_subject
from objstore.read.lookup import deleted, live_info, not_found
from support.memory_server import NO_MESSAGE, MemoryServer


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


@pytest.mark.parametrize("call", ["get_info", "exists", "update_meta", "delete"])
async def test_no_such_object_as_the_answer_to_anothers_request(server: MemoryServer, call: str) -> None:
    """A peer can have that sent to us, now and then."""
    store = await server.bucket(replicas=3)
    await store.put("a", b"x")
    left = 2

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal left
        if verb != "STREAM.MSG.GET" or body.get("last_by_subj") != meta_subject("b", "a") or not left:
            return None
        left -= 1
        return NO_MESSAGE

    server.hook = hook
    arguments = [ObjectMeta(name="a", description="d")] if call == "update_meta" else []
    assert await getattr(store, call)("a", *arguments) is not False
    assert left == 0


async def test_errors_say_where(server: MemoryServer) -> None:
    store = await server.bucket()
    error = not_found("b", "a")
    assert (error.bucket, error.name) == ("b", "a")
    assert "'a'" in str(error)
    info = await store.put("a", b"")
    gone = deleted(info)
    assert (gone.bucket, gone.name, gone.revision) == ("b", "a", info.revision)
