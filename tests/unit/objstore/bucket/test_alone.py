"""Where nothing tells two APIs apart, a configuration goes back only if one bucket of the name answers."""

from __future__ import annotations

from typing import Any

import pytest

from natsproto.errors import RequestTimeoutError
from natsproto.wire import Pub
from objstore import ForeignBucketError, ObjectStore
from objstore.bucket.alone import check_alone
from objstore.bucket.binding import bind_info
from objstore.manager import update_bucket
from support.memory_server import SILENCE, MemoryServer, error


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natsproto.jetstream.all_answers.WAIT", 0.05)
    monkeypatch.setattr("objstore.bucket.alone.BEHIND", (0.0, 0.01, 0.01))


def also(server: MemoryServer, *answers: Any, first: bool = True) -> None:
    """Have others answer, too. The server has no JetStream itself, so any domain's may be right."""
    asked = server.on_pub
    server.session.info["jetstream"] = False

    def on_pub(pub: Pub) -> None:
        if not first:
            asked(pub)
        if pub.subject.startswith(b"$JS.API.STREAM.INFO."):
            for payload, header in answers:
                server.answer(pub, payload, header)
        if first:
            asked(pub)

    server.session.on_pub = on_pub


STATUS = (b"", b"NATS/1.0 404 Message Not Found\r\n\r\n")
REST = [(b"", None), (b"{}", None), (b"x", None), (error(404, 10059, "stream not found"), None), STATUS]


def other(server: MemoryServer) -> dict[str, Any]:
    return {**server.stream().info({}), "created": "2020-01-01T00:00:00Z"}


async def test_two_buckets(server: MemoryServer, store: ObjectStore) -> None:
    """Whatever else comes, and whichever is first."""
    found = await bind_info(server.js, "b")
    await check_alone(server.js, "b", found)
    also(server, *REST)
    await check_alone(server.js, "b", found)
    also(server, *REST, (other(server), None))
    with pytest.raises(ForeignBucketError, match="two buckets 'b' have answered"):
        await check_alone(server.js, "b", found)
    server.session.info["jetstream"] = True  # then its own domain alone counts
    await check_alone(server.js, "b", found)
    assert [each for each in server.connection.handlers.values() if each is not server.connection._mux] == []


async def test_too_much_comes_to_tell(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not seen behind it may be another bucket's answer."""
    monkeypatch.setattr("natsproto.jetstream.all_answers.MOST", 20)
    found = await bind_info(server.js, "b")
    also(server, *[(b"x", None)] * 21, first=False)
    with pytest.raises(RequestTimeoutError, match="is not known: nothing was changed"):
        await check_alone(server.js, "b", found)


async def test_nobody_answers(server: MemoryServer, store: ObjectStore) -> None:
    """Nor does that show that there is no other one."""
    found = await bind_info(server.js, "b")
    server.session.info["jetstream"] = False
    server.hook = lambda verb, body: SILENCE if verb == "STREAM.INFO" else None
    with pytest.raises(RequestTimeoutError, match="is not known: nothing was changed"):
        await check_alone(server.js, "b", found)


@pytest.mark.parametrize("theirs", [-1, 1])
async def test_only_another_bucket_answers(server: MemoryServer, store: ObjectStore, theirs: int) -> None:
    """The own one has no leader now, but would be changed all the same. A consumer tells its end."""
    await store.put("a", b"x")
    server.session.info["jetstream"] = False
    info = other(server)
    info["state"] = {**info["state"], "last_seq": info["state"]["last_seq"] + theirs}
    server.hook = lambda verb, body: info if verb == "STREAM.INFO" else None
    with pytest.raises(RequestTimeoutError, match="is not known: nothing was changed"):
        await update_bucket(server.js, "b", {"description": "d"})
    assert "STREAM.UPDATE" not in server.verbs()


async def test_only_another_stream_answers(server: MemoryServer, store: ObjectStore) -> None:
    found = await bind_info(server.js, "b")
    server.session.info["jetstream"] = False
    info = {**server.stream().info({}), "config": {"name": "OTHER"}}
    server.hook = lambda verb, body: info if verb == "STREAM.INFO" else None
    with pytest.raises(RequestTimeoutError, match="is not known: nothing was changed"):
        await check_alone(server.js, "b", found)


async def test_a_consumer_at_a_replica_that_is_behind(server: MemoryServer, store: ObjectStore) -> None:
    await store.put("a", b"x")
    found = await bind_info(server.js, "b")
    server.session.info["jetstream"] = False
    ends = [0, 1, server.stream().seq]

    def hook(verb: str, body: Any) -> Any:
        if verb != "CONSUMER.CREATE":
            return None
        told = server.stream().consume(body["config"]["name"], body["config"])
        return {**told, "delivered": {"consumer_seq": 0, "stream_seq": ends.pop(0)}}

    server.hook = hook
    await check_alone(server.js, "b", found)
    assert ends == []


@pytest.mark.parametrize("first", [True, False])
async def test_sealing_changes_nothing_then(server: MemoryServer, store: ObjectStore, first: bool) -> None:
    also(server, STATUS, (other(server), None), first=first)
    with pytest.raises(ForeignBucketError):
        await store.seal()
    assert "STREAM.UPDATE" not in server.verbs()
    assert server.stream().config.get("sealed") is not True
