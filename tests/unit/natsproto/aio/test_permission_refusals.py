"""A permissions violation names a subject, and no message: when it is that of a request for certain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from natsproto.aio import permission_refusals
from natsproto.errors import NatsError, PermissionsViolationError
from natsproto.wire import Msg
from support.fake_session import FakeServer, turns

Task = asyncio.Task[Msg]


class Requests:
    """Those of one client to one subject, and what it reports."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.reported: list[BaseException] = []
        self.server.connection.options.error_cb = self.reported.append  # type: ignore[misc]

    async def send(self, subject: str = "x", timeout: float = 60) -> Task:
        task = asyncio.ensure_future(self.server.client.request_frame(subject.encode(), b"", b"", timeout))
        await turns()
        return task

    async def ping(self) -> None:
        """What was sent before has been processed."""
        await self.server.client.flush()

    def refuse(self, subject: str = "x", operation: str = "Publish") -> None:
        self.server.refuse(subject, operation)


@pytest.fixture
async def requests() -> AsyncIterator[Requests]:
    each = Requests()
    yield each
    await each.server.client.close()


async def refused(task: Task) -> PermissionsViolationError:
    with pytest.raises(PermissionsViolationError) as caught:
        await task
    return caught.value


async def test_alone(requests: Requests) -> None:
    task = await requests.send()
    other = await requests.send("y")
    requests.refuse()
    assert (await refused(task)).certain
    assert not other.done()
    await refused_by(requests, other, "y")


async def refused_by(requests: Requests, task: Task, subject: str) -> None:
    requests.refuse(subject)
    assert (await refused(task)).certain


async def test_one_of_two(requests: Requests) -> None:
    """Which of them it was, nobody knows: until the other one is refused as well."""
    tasks = [await requests.send(), await requests.send()]
    requests.refuse()
    errors = [await refused(task) for task in tasks]
    assert not any(error.certain for error in errors)
    requests.refuse()
    assert all(error.certain for error in errors)
    assert requests.reported == []
    requests.refuse()
    await turns()
    assert len(requests.reported) == 1, "nobody waits for that one"


async def test_one_of_two_and_no_other_refusal(requests: Requests) -> None:
    """The PONG says that the other one was not refused; what is sent after that stands for itself."""
    tasks = [await requests.send(), await requests.send()]
    requests.refuse()
    errors = [await refused(task) for task in tasks]
    await requests.ping()
    task = await requests.send()
    requests.refuse()
    assert (await refused(task)).certain
    assert not any(error.certain for error in errors)


async def test_one_that_was_sent_since(requests: Requests) -> None:
    """The second refusal is that of the other one, or of the new one."""
    tasks = [await requests.send(), await requests.send()]
    requests.refuse()
    errors = [await refused(task) for task in tasks]
    late = await requests.send()
    requests.refuse()
    error = await refused(late)
    assert not error.certain
    requests.refuse()
    assert error.certain, "three were sent, and three refused"
    assert not any(error.certain for error in errors), "never certain too early is enough"


async def test_answered_ones_do_not_count(requests: Requests) -> None:
    first, second = await requests.send(), await requests.send()
    requests.server.reply(requests.server.pubs[0], b"taken")
    requests.refuse()  # before the first one's task has seen its answer
    assert (await refused(second)).certain
    assert bytes((await first).payload) == b"taken"


@pytest.mark.parametrize("how", ["cancelled", "timed out", "no reply to be had"])
async def test_one_that_was_given_up(requests: Requests, how: str) -> None:
    """It may be refused late, until the server has answered something that was sent later."""
    given_up = await requests.send(timeout=0.01 if how == "timed out" else 60)
    if how == "cancelled":
        given_up.cancel()
    elif how == "no reply to be had":
        requests.refuse(requests.server.connection.mux.subject.decode(), "Subscription")
    await asyncio.wait([given_up])
    second = await requests.send()
    requests.refuse()
    error = await refused(second)
    assert not error.certain
    requests.refuse()
    assert error.certain
    await requests.ping()
    third = await requests.send()
    third.cancel()
    await asyncio.wait([third])
    await requests.ping()
    fourth = await requests.send()
    requests.refuse()
    assert (await refused(fourth)).certain


async def test_many_that_were_given_up(requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so many subjects none is remembered: until the server has answered, any of them is meant."""
    monkeypatch.setattr(permission_refusals, "MAX_SUBJECTS", 3)
    for number in range(5):
        task = await requests.send(f"s{number}")
        task.cancel()
        await asyncio.wait([task])
    assert len(requests.server.session.refusals._given_up) <= 3
    task = await requests.send("s0")
    requests.refuse("s0")
    assert not (await refused(task)).certain
    await requests.ping()
    await refused_by(requests, await requests.send("s0"), "s0")


async def test_a_refused_inbox_refuses_no_request(requests: Requests) -> None:
    """The answer cannot come; what was asked for may have been done."""
    task = await requests.send()
    requests.refuse(requests.server.connection.mux.subject.decode(), "Subscription")
    error = await refused(task)
    assert (error.operation, error.certain) == ("subscription", False)


async def test_another_session(requests: Requests) -> None:
    """What was sent on a lost connection is refused there, or not at all."""
    given_up = await requests.send()
    requests.server.lose()
    with pytest.raises(NatsError):
        await given_up
    requests.server.connect()
    await refused_by(requests, await requests.send(), "x")


# -- a server that names another subject than was sent ------------------------------------------------------

HUB, PLAIN = "$JS.hub.API.STREAM.INFO.S", "$JS.API.STREAM.INFO.S"


@pytest.fixture(params=["at a server of the domain", "with a default domain"])
def names(request: pytest.FixtureRequest, requests: Requests) -> tuple[str, str]:
    """What is sent, and what the server names."""
    if request.param == "with a default domain":
        requests.server.session.info["domain"] = "leaf"
        return PLAIN, HUB
    requests.server.session.info["domain"] = "hub"
    return HUB, PLAIN


async def test_the_other_prefix(requests: Requests, names: tuple[str, str]) -> None:
    sent, named = names
    task = await requests.send(sent)
    requests.refuse(named)
    error = await refused(task)
    assert (error.subject, error.certain) == (named, True), "the one that needs the right"
    assert requests.reported == []


async def test_two_by_the_other_prefix(requests: Requests, names: tuple[str, str]) -> None:
    sent, named = names
    tasks = [await requests.send(sent), await requests.send(sent)]
    requests.refuse(named)
    errors = [await refused(task) for task in tasks]
    assert not any(error.certain for error in errors)
    requests.refuse(named)
    assert all(error.certain for error in errors)
    assert requests.reported == []
    requests.refuse(named)
    await turns()
    assert len(requests.reported) == 1


async def test_both_prefixes(requests: Requests, names: tuple[str, str]) -> None:
    """The one that is named goes first; the other one may have been allowed."""
    sent, named = names
    other, exact = await requests.send(sent), await requests.send(named)
    requests.refuse(named)
    assert not (await refused(exact)).certain, "the other one may be meant"
    assert not other.done()
    requests.refuse(named)
    assert (await refused(other)).certain
    assert requests.reported == []


@pytest.mark.parametrize("how", ["given up", "refused"])
async def test_one_of_the_named_prefix_before(requests: Requests, names: tuple[str, str], how: str) -> None:
    """Its refusal may still come: it is not that of the other one."""
    sent, named = names
    before = [await requests.send(named), await requests.send(named)]
    if how == "given up":
        for task in before:
            task.cancel()
        await asyncio.wait(before)
        requests.refuse(named)
        await turns()
        requests.reported.clear()
    else:
        requests.refuse(named)
        for task in before:
            await refused(task)
    other = await requests.send(sent)
    requests.refuse(named)
    await turns()
    assert not other.done()
    await requests.ping()
    requests.refuse(named)
    assert (await refused(other)).certain


async def test_one_of_the_other_prefix_was_given_up(requests: Requests, names: tuple[str, str]) -> None:
    sent, named = names
    given_up = await requests.send(sent)
    given_up.cancel()
    await asyncio.wait([given_up])
    exact = await requests.send(named)
    requests.refuse(named)
    assert not (await refused(exact)).certain


@pytest.mark.parametrize(
    ("domain", "sent", "named"),
    [
        ("hub", "$JS.leaf.API.STREAM.INFO.S", PLAIN),  # another domain's
        (None, HUB, PLAIN),  # not mapped here
        ("\ud800", HUB, PLAIN),
        (5, HUB, PLAIN),
        ("hub", HUB, "$JS.leaf.API.STREAM.INFO.S"),
        ("hub", HUB, "$JS.API.STREAM.INFO.T"),
        ("hub", "acme.API.STREAM.INFO.S", PLAIN),  # an imported API
        ("hub", PLAIN, "acme.API.STREAM.INFO.S"),
        ("hub", "$JS.FC.S.c", "$JS.hub.FC.S.c"),
    ],
)
async def test_another_api(requests: Requests, domain: object, sent: str, named: str) -> None:
    requests.server.session.info["domain"] = domain
    task = await requests.send(sent)
    requests.refuse(named)
    await turns()
    assert not task.done()
    assert len(requests.reported) == 1, "nobody waits for it"
    task.cancel()
