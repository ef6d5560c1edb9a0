"""A leader that is older than 2.10: what it forgets, and when it checks conditions."""

from __future__ import annotations

from typing import Any

import pytest

from natsproto.jetstream.api.models import StreamInfo
from objstore import ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from support.memory_server import NO_MESSAGE, ROLL_UP, MemoryServer


async def bound(server: MemoryServer) -> Bucket:
    await server.bucket()
    return await bind(server.js, "b")


async def test_a_server_that_miscounts_deletes_one_by_one(server: MemoryServer) -> None:
    bucket = await bound(server)
    bucket.old.index_broken = True
    for n in range(3):
        server.put_raw("$O.b.C.n", b"%d" % n)
    server.verbs()
    await bucket.purge_chunks("n")
    verbs = server.verbs()
    assert verbs.count("STREAM.MSG.DELETE") == 3
    assert verbs[-1] == "STREAM.PURGE"


@pytest.mark.parametrize("refused", [set[str](), {"CONSUMER.CREATE"}])
async def test_chunks_are_removed_one_by_one(refused: set[str]) -> None:
    """Where 2.9 has lost count; if they are the bucket's, and not another stream's."""
    server = MemoryServer("2.9.10")
    bucket = await bound(server)
    bucket.old.index_broken = True
    seqs = [server.put_raw("$O.b.C.n", b"mine") for _ in range(2)]
    server.refused = refused
    await bucket.purge_chunks("n")
    assert server.verbs().count("STREAM.MSG.DELETE") == (0 if refused else 2)
    assert server.stream().messages == {}
    server.refused = set()
    other: Any = server.leader_message(server.stream().messages[server.put_raw("$O.b.C.n", b"mine")])
    other["message"]["seq"] = seq = server.put_raw("$O.b.C.other", b"another's")

    def hook(verb: str, body: dict[str, Any]) -> Any:
        return other if verb == "STREAM.MSG.GET" and body.get("seq", 0) <= seq else None

    server.hook = hook
    await bucket.purge_chunks("n")
    assert list(server.stream().messages) == [seq]
    assert seqs[-1] < seq
    await server.client.close()


@pytest.mark.parametrize(
    ("version", "told", "replicated", "early"),
    [
        ("2.15.1", {"ts": "2026-11-22T00:00:00Z", "cluster": {}}, True, False),
        ("2.15.1", {"cluster": {}}, True, True),  # the leader is an older one
        ("2.15.1", {"cluster": {}}, False, False),
        ("2.9.10", {"cluster": {}}, True, True),
        ("2.9.10", {}, False, False),
    ],
)
async def test_a_leader_that_checks_early(
    version: str, told: dict[str, Any], replicated: bool, early: bool
) -> None:
    """In a cluster that is being upgraded the server that we are connected to says nothing of the leader."""
    server = MemoryServer(version)
    config = {"name": "OBJ_b", "num_replicas": 3 if replicated else 1}
    document = {"config": config, "state": {}, "created": "2026-11-22T00:00:00Z", **told}
    bucket = Bucket(server.js, "b", StreamInfo.from_json(document))
    assert bucket.old.checks_early is early
    await server.client.close()


@pytest.mark.parametrize("broken", [False, True])
async def test_an_index_that_is_broken_and_one_that_is_behind(broken: bool) -> None:
    """2.9 may have lost a message of a full account; or somebody stores one between two questions."""
    server = MemoryServer("2.9.10")
    bucket = await bound(server)
    seq = server.put_raw("$O.b.M.n", b"{}", ROLL_UP)
    asked = 0

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal asked
        if verb != "STREAM.MSG.GET" or "last_by_subj" not in body:
            return None
        asked += 1
        return NO_MESSAGE if broken or asked == 1 else None

    server.hook = hook
    message = await bucket.leader_message("$O.b.M.n")
    assert bucket.old.index_broken is broken
    assert (None if message is None else message.seq) == (seq if broken else None)
    await server.client.close()


async def test_another_handle_knows_it_too() -> None:
    """And asks within its own budget."""
    server = MemoryServer("2.9.10")
    store: ObjectStore = await server.bucket()
    store.bound_bucket.old.index_broken = True
    other = store.with_options(retry_budget=7).bound_bucket
    assert other.old.index_broken
    assert other.old.leads
    assert other.old._bucket is other
    await server.client.close()
