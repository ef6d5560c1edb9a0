"""Ends of a pull that another consumer may have sent: a fellow client asks it with the same inbox."""

from __future__ import annotations

import asyncio

import pytest

from natsproto.errors import NatsError, StaleConnectionError
from natsproto.jetstream.api.errors import ConsumerNotFoundError
from natsproto.jetstream.api.statuses import (
    BadPullError,
    ConsumerDeletedError,
    MaxBytesError,
    NotPullConsumerError,
    PullError,
    PullLimitError,
)
from natsproto.wire import Pub
from support.fake_session import turns, until
from support.pulls import Pulled
from support.waits import held

CLAIMS = [
    ("409 Consumer Deleted", ConsumerDeletedError),
    ("409 Exceeded MaxRequestBatch of 1", PullLimitError),
    ("409 Exceeded MaxRequestExpires of 1s", PullLimitError),
    ("409 Message Size Exceeds MaxBytes", MaxBytesError),
    ("409 Consumer is push based", NotPullConsumerError),
    ("400 Bad Request - Priority Group missing", BadPullError),
    ("412 Required Api Level", PullError),
]

ENDS = ["404 No Messages", "408 Request Timeout", "408 Requests Pending", "409 Batch Completed"]


@pytest.fixture
async def pulled() -> Pulled:
    return Pulled({"max_batch": 100, "max_expires": 20_000_000_000})


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natsproto.jetstream.pull.GRACE", 0.01)
    monkeypatch.setattr("natsproto.jetstream.pull.FIRST_PAUSE", 0.0)


async def claimed(pulled: Pulled, text: str, times: int = 1) -> None:
    """Say the end of the newest request, and let the client ask about it."""
    asked = pulled.asked
    for count in range(1, times + 1):
        pulled.status(pulled.pubs[-1], text)
        await until(lambda count=count: pulled.asked == asked + count)
        await turns()


# -- lasting reasons ------------------------------------------------------------------------------


@pytest.mark.parametrize("iterate", [False, True])
@pytest.mark.parametrize(("text", "kind"), CLAIMS)
async def test_what_the_consumer_does_not_explain(
    pulled: Pulled, iterate: bool, text: str, kind: type[NatsError]
) -> None:
    """The same request goes on."""
    read = pulled.read(2, timeout=20) if iterate else pulled.consumer.fetch(2, timeout=20)
    task = asyncio.ensure_future(read)
    await until(lambda: pulled.pubs)
    await claimed(pulled, text, times=2)
    pulled.message(pulled.pubs[0])
    await claimed(pulled, text)
    assert not task.done()
    pulled.message(pulled.pubs[0])
    assert len(await task) == 2
    assert len(pulled.requests) == 1
    assert pulled.reported == []
    assert pulled.consumer.last_end is None


@pytest.mark.parametrize(("text", "kind"), CLAIMS)
async def test_an_end_at_its_time(pulled: Pulled, text: str, kind: type[NatsError]) -> None:
    """It shows that the claim was false: the server had the request."""
    task = asyncio.ensure_future(pulled.consumer.fetch(2, timeout=0.05))
    await until(lambda: pulled.pubs)
    await claimed(pulled, text)
    await held(0.05)
    pulled.status(pulled.pubs[0], "408 Request Timeout")
    assert await task == []
    assert pulled.consumer.last_end is None


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("text", "kind"), CLAIMS)
async def test_a_claim_that_nothing_disproves(
    pulled: Pulled, text: str, kind: type[NatsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised when the time is over; by an iteration when that lasts."""
    pulled.answers = [pulled.says(text)]
    with pytest.raises(kind):
        await pulled.consumer.fetch(2, timeout=0.02)
    pulled.answers = [pulled.says(1, text)]
    assert len(await pulled.consumer.fetch(2, timeout=0.02)) == 1
    assert isinstance(pulled.consumer.last_end, kind)

    pulled.answers = [pulled.says(text), pulled.says(text), pulled.says(1)]
    assert len(await pulled.read(1, timeout=0.02)) == 1
    assert [type(exc) for exc in pulled.reported] == [kind]
    monkeypatch.setattr(pulled.server.connection.options, "retry_budget", 0.05)
    pulled.answers = [pulled.says(text)]
    pulled.requests.clear()
    with pytest.raises(kind):
        await pulled.read(1, timeout=0.02)
    assert len(pulled.requests) > 1


@pytest.mark.parametrize(("text", "kind"), CLAIMS)
async def test_who_may_not_ask(pulled: Pulled, text: str, kind: type[NatsError]) -> None:
    """A claim that cannot be checked counts, as soon as that is known."""

    def on_pub(pub: Pub) -> None:
        if b".CONSUMER.INFO." in pub.subject:
            pulled.server.refuse("$JS.API.CONSUMER.INFO.S.c")
        else:
            pulled.on_pub(pub)

    pulled.server.session.on_pub = on_pub
    pulled.answers = [pulled.says(text)]
    with pytest.raises(kind):
        await pulled.consumer.fetch(2, timeout=20)
    with pytest.raises(kind):
        await pulled.read(1, timeout=20)


@pytest.mark.parametrize("timeout", [0.01, 20.0])
async def test_nobody_answers_the_question(
    pulled: Pulled, timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("natsproto.jetstream.pull.CONFIRM", 0.02)
    pulled.consumer._js.timeout = timeout
    pulled.server.session.on_pub = lambda pub: (
        pulled.status(pub, "409 Consumer Deleted") if b".NEXT." in pub.subject else None
    )
    with pytest.raises(ConsumerDeletedError):
        await pulled.consumer.fetch(2, timeout=20)


@pytest.mark.parametrize(("text", "kind"), CLAIMS)
async def test_a_consumer_of_the_same_name(pulled: Pulled, text: str, kind: type[NatsError]) -> None:
    """The one that was asked is gone: another one does not disprove its end."""
    pulled.now({"created": "2026-01-01T00:00:00Z"})
    pulled.answers = [pulled.says(text)]
    with pytest.raises(kind):
        await pulled.consumer.fetch(2, timeout=20)


async def test_a_consumer_that_is_gone(pulled: Pulled) -> None:
    """A claim does not hide that; messages that came before are passed on."""
    pulled.now(None)
    pulled.answers = [pulled.says(2, "409 Consumer Deleted")]
    found = []
    with pytest.raises(ConsumerNotFoundError):
        async for msg in pulled.consumer.messages(timeout=20):
            found += [msg.data]
    assert found == [b"m1", b"m2"]


async def test_another_claim_meanwhile(pulled: Pulled) -> None:
    """It is asked about, too: the server's first answer may be older."""
    asked: list[Pub] = []
    pulled.server.session.on_pub = lambda pub: (
        asked.append(pub) if b".CONSUMER.INFO." in pub.subject else pulled.on_pub(pub)
    )
    task = asyncio.ensure_future(pulled.consumer.fetch(2, timeout=20))
    await until(lambda: pulled.pubs)
    pulled.status(pulled.pubs[0], "409 Consumer Deleted")
    await until(lambda: asked)
    pulled.status(pulled.pubs[0], "409 Exceeded MaxRequestBatch of 1")
    pulled.server.reply(asked[0], pulled.info)
    await until(lambda: len(asked) == 2)
    pulled.now({"config": {"max_batch": 1}})
    pulled.server.reply(asked[1], pulled.info)
    with pytest.raises(PullLimitError):
        await task


async def test_messages_meanwhile(pulled: Pulled) -> None:
    pulled.server.session.on_pub = lambda pub: (
        None if b".CONSUMER.INFO." in pub.subject else pulled.on_pub(pub)
    )
    pulled.answers = [pulled.says("409 Consumer Deleted", 2)]
    assert len(await pulled.consumer.fetch(2, timeout=20)) == 2
    assert pulled.consumer.last_end is None


async def test_the_connection_is_lost_meanwhile(pulled: Pulled) -> None:
    pulled.server.session.on_pub = lambda pub: (
        None if b".CONSUMER.INFO." in pub.subject else pulled.on_pub(pub)
    )
    pulled.answers = [pulled.says("409 Consumer Deleted")]
    task = asyncio.ensure_future(pulled.consumer.fetch(2, timeout=20))
    await turns()
    pulled.server.lose()
    with pytest.raises(StaleConnectionError):
        await task


async def test_the_end_of_a_batch_by_its_bytes(pulled: Pulled) -> None:
    """A usual one costs no request. A first message that is too large is pending, or not acknowledged."""
    pulled.answers = [pulled.says(2, "409 Message Size Exceeds MaxBytes")]
    assert len(await pulled.consumer.fetch(5, max_bytes=100)) == 2
    assert len(await pulled.read(4, max_bytes=100)) == 4
    assert pulled.asked == 0
    pulled.answers = [pulled.says("409 Message Size Exceeds MaxBytes")]
    for info in ({"num_pending": 1, "num_ack_pending": 0}, {"num_pending": 0, "num_ack_pending": 1}):
        pulled.now(info)
        with pytest.raises(MaxBytesError):
            await pulled.consumer.fetch(5, max_bytes=100)


# -- ends without a reason ------------------------------------------------------------------------


@pytest.mark.parametrize("iterate", [False, True])
@pytest.mark.parametrize("text", ENDS)
async def test_ends_before_their_time(pulled: Pulled, text: str, iterate: bool) -> None:
    read = pulled.read(2, timeout=20) if iterate else pulled.consumer.fetch(2, timeout=20)
    task = asyncio.ensure_future(read)
    await until(lambda: pulled.pubs)
    pulled.status(pulled.pubs[0], text)
    pulled.message(pulled.pubs[0])
    pulled.status(pulled.pubs[0], text)
    await turns()
    assert not task.done()
    pulled.message(pulled.pubs[0])
    assert len(await task) == 2
    assert (len(pulled.requests), pulled.asked) == (1, 0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("text", ENDS)
async def test_nothing_more_after_it(pulled: Pulled, text: str) -> None:
    """The clock of this machine may have stood still."""
    pulled.answers = [pulled.says(text)]
    assert await pulled.consumer.fetch(2, timeout=0.02) == []
    assert pulled.consumer.last_end is None
    pulled.answers = [pulled.says(text), pulled.says(1)]
    assert len(await pulled.read(1, timeout=0.02)) == 1
    assert pulled.reported == []


@pytest.mark.parametrize("text", ENDS)
async def test_a_request_that_does_not_wait(pulled: Pulled, text: str) -> None:
    """It has no time: the first end counts."""
    pulled.answers = [pulled.says(text)]
    assert await pulled.consumer.fetch(2, no_wait=True) == []


async def test_a_request_from_another_account(pulled: Pulled) -> None:
    """Its server may see nobody listen any more: then it ends before its time."""
    pulled.answers = [pulled.says("408 Interest Expired")]
    assert await pulled.consumer.fetch(2, timeout=20) == []
