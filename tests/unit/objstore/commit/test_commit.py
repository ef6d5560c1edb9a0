"""The commit of a meta message against scripted answers."""

from __future__ import annotations

import asyncio

import pytest

from natsproto.errors import APIError, NatsError, RemoteProtocolError, RequestTimeoutError, WrongStreamError
from natsproto.jetstream.api.models import StreamInfo
from natsproto.wire import Pub
from objstore.bucket.bucket import Bucket
from objstore.commit.commit import Commit
from objstore.commit.states import Step
from support.fake_session import FakeServer, turns

CREATED = {"config": {"name": "OBJ_b"}, "state": {}, "created": "2024-01-01T00:00:00Z"}


async def commit(*answers: bytes) -> int:
    """What a commit makes of these answers."""
    server = FakeServer()

    def on_pub(pub: Pub) -> None:
        for answer in answers:
            server.reply(pub, answer)

    server.session.on_pub = on_pub
    bucket = Bucket(server.client.jetstream(timeout=0.5), "b", StreamInfo.from_json(CREATED))
    return (await Commit(bucket, "a", b"{}", expected=0, nuid="N")._publish(0, "id", 0.1)).seq


@pytest.mark.parametrize(
    "answer",
    [
        b'{"stream":"OBJ_b","seq":7}',
        b'{"stream":"OBJ_b", "seq":7}',
        b'{"stream": "OBJ_b", "seq": 7}',
        b'{"stream":"OBJ_b","seq":7,"duplicate":true}',
        b'{"seq":7,"stream":"OBJ_b"}',
    ],
)
async def test_acknowledgement(answer: bytes) -> None:
    assert await commit(answer) == 7


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'{"stream":"OBJ_c","seq":7}', WrongStreamError),  # stored, but where nobody looks for it
        (b'{"stream":"OBJ_b2","seq":7}', WrongStreamError),
        (b'{"stream":"OBJ_b","seq":7,"domain":"hub"}', WrongStreamError),
        (b'{"error":{"code":503,"err_code":10077,"description":"full"},"stream":"OBJ_b","seq":0}', APIError),
        (b'{"stream":"OBJ_b","seq":07}', NatsError),
        (b'{"stream":"OBJ_b","seq":}', NatsError),
        (b'{"stream":"OBJ_b"}', RemoteProtocolError),
        (b"", RemoteProtocolError),
    ],
)
async def test_no_acknowledgement(answer: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await commit(answer)


@pytest.mark.parametrize("err_code", [10060, 10166, 10168, 10174, 10188])
async def test_a_refusal_of_another_message(err_code: int) -> None:
    """Whoever may publish to the same stream has it refuse a message of theirs, with our reply subject."""
    refusal = b'{"error":{"code":400,"err_code":%d,"description":"no"},"stream":"OBJ_b","seq":0}' % err_code
    assert await commit(refusal, b'{"stream":"OBJ_b","seq":7}') == 7
    with pytest.raises(RequestTimeoutError):
        await commit(refusal)


async def two_commits() -> tuple[FakeServer, list[Commit], list[asyncio.Task[None]]]:
    """Of one subject, both on their way; the server does not answer PING by itself."""
    server = FakeServer()
    server.session.pongs = False
    bucket = Bucket(server.client.jetstream(timeout=60), "b", StreamInfo.from_json(CREATED))
    bucket.retry_budget = 60
    commits = [Commit(bucket, "a", b"{}", expected=0, nuid=nuid) for nuid in "MN"]
    sending = [asyncio.ensure_future(each._send()) for each in commits]
    await turns()
    server.refuse(server.pubs[0].subject.decode())
    await turns()
    return server, commits, sending


async def test_a_refusal_that_may_be_that_of_another() -> None:
    """It names a subject. After the PONG no other refusal comes: one of the two was not refused."""
    server, commits, sending = await two_commits()
    assert not any(task.done() for task in sending)
    server.session.answer_pings()
    await asyncio.gather(*sending)
    assert [each.states.step for each in commits] == [Step.READ, Step.READ]
    assert not any(each.states.certain for each in commits)
    await server.client.close()


async def test_as_many_refusals_as_commits() -> None:
    server, commits, sending = await two_commits()
    server.refuse(server.pubs[0].subject.decode())
    server.session.answer_pings()
    await asyncio.gather(*sending)
    assert [each.states.step for each in commits] == [Step.REFUSED, Step.REFUSED]
    await server.client.close()


async def test_a_refused_inbox_is_no_refusal() -> None:
    server = FakeServer()
    bucket = Bucket(server.client.jetstream(timeout=60), "b", StreamInfo.from_json(CREATED))
    commit = Commit(bucket, "a", b"{}", expected=0, nuid="N")
    sending = asyncio.ensure_future(commit._send())
    await turns()
    server.refuse(server.connection.mux.subject.decode(), "Subscription")
    await sending
    assert commit.states.step is Step.READ
    await server.client.close()
