"""Reading messages against scripted answers: the leader, direct get, batches."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from natsproto.errors import (
    APIError,
    BadSubjectError,
    ConfigError,
    NoRespondersError,
    PermissionsViolationError,
    RemoteProtocolError,
    RequestTimeoutError,
    StaleConnectionError,
    UnsupportedFeatureError,
)
from natsproto.jetstream.api.errors import (
    MessageNotFoundError,
)
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.reads import BATCH_BYTES
from natsproto.wire import Pub
from support.api_answers import NOBODY, answering, body, eob, pages, stored
from support.fake_session import FakeServer

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
"""When the messages of these tests were stored."""


def answering_direct(server: FakeServer, *headers: bytes) -> None:
    """Answer the requests to come with one message each."""
    left = list(headers)
    server.session.on_pub = lambda pub: server.reply(pub, b"", left.pop(0))


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=0.5)


async def test_choosing_a_message(server: FakeServer, js: JetStreamContext) -> None:
    found = {
        "message": {
            "subject": "a.b",
            "seq": 5,
            "data": base64.b64encode(b"data").decode(),
            "hdrs": base64.b64encode(b"NATS/1.0\r\nA: b\r\n\r\n").decode(),
            "time": "2024-01-01T00:00:00Z",
        }
    }
    answering(server, *[found] * 4)
    for choice in (
        {"seq": 5},
        {"last_by_subject": "a.*"},
        {"next_by_subject": "a.>"},
        {"next_by_subject": "a.b", "seq": 3},
    ):
        message = await js.get_message("S", **choice)  # type: ignore[arg-type]
        assert (message.seq, message.data, message.header) == (5, b"data", b"NATS/1.0\r\nA: b\r\n\r\n")
    assert [body(pub) for pub in server.pubs] == [
        {"seq": 5},
        {"last_by_subj": "a.*"},
        {"next_by_subj": "a.>"},
        {"seq": 3, "next_by_subj": "a.b"},
    ]
    for choice in (
        {},
        {"seq": 1, "last_by_subject": "a"},
        {"last_by_subject": "a", "next_by_subject": "a"},
        {"seq": 1, "start_time": NEW_YEAR},
        {"last_by_subject": "a", "start_time": NEW_YEAR},
        {"start_time": NEW_YEAR.replace(tzinfo=None)},
        {"start_time": "2024-01-01"},
    ):
        for call in (js.get_message, js.direct_get):
            with pytest.raises(ConfigError):
                await call("S", **choice)  # type: ignore[arg-type]
    assert len(server.pubs) == 4


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"message": []},
        {"message": {"subject": 5, "seq": 1}},
        {"message": {"subject": "a"}},
        {"message": {"subject": "a", "seq": 1, "data": "!", "time": "x"}},
        {"message": {"subject": "a", "seq": 1, "data": 5, "time": "2024-01-01T00:00:00Z"}},
        {"message": {"subject": "a", "seq": 1}},
    ],
)
async def test_a_leader_answer_that_is_none(
    server: FakeServer, js: JetStreamContext, answer: dict[str, Any]
) -> None:
    answering(server, answer)
    with pytest.raises(RemoteProtocolError):
        await js.get_message("S", seq=1)


async def test_a_stored_status_is_a_message(server: FakeServer, js: JetStreamContext) -> None:
    """Anybody may store an empty message whose header is a status."""
    server.session.on_pub = lambda pub: server.reply(pub, b"", stored(4, line=b"NATS/1.0 404 gone"))
    assert (await js.direct_get("S", seq=4)).seq == 4


async def test_forged_facts_do_not_count(server: FakeServer, js: JetStreamContext) -> None:
    forged = b"Nats-Sequence: 99\r\nNats-Subject: other\r\nNats-Time-Stamp: never\r\n"
    server.session.on_pub = lambda pub: server.reply(pub, b"x", stored(4, extra=forged))
    message = await js.direct_get("S", seq=4)
    assert (message.seq, message.subject) == (4, "s.a")


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nNats-Sequence: x\r\nNats-Subject: a\r\n\r\n",
        b"NATS/1.0\r\nNats-Sequence: 1",
    ],
)
async def test_a_direct_answer_that_is_none(
    server: FakeServer, js: JetStreamContext, header: bytes | None
) -> None:
    """It is ignored: anybody may have such messages sent here."""
    answers = [header, stored(1)]

    def on_pub(pub: Pub) -> None:
        for each in answers:
            server.reply(pub, b"data", each)

    server.session.on_pub = on_pub
    assert (await js.direct_get("S", seq=1)).seq == 1
    assert [m.seq async for m in js.get_batch("S")] == [1]
    answers.pop()
    js.timeout = 0.02
    with pytest.raises(RequestTimeoutError):
        await js.direct_get("S", seq=1)
    with pytest.raises(RequestTimeoutError, match="nothing came"):
        await anext(js.get_batch("S"))


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (b"NATS/1.0 404 Message Not Found\r\n\r\n", MessageNotFoundError),
        (b"NATS/1.0 408 Empty Request\r\n\r\n", APIError),
        (b"NATS/1.0 413 Too Many Results\r\n\r\n", APIError),
        (NOBODY, NoRespondersError),
    ],
)
async def test_status_of_a_batch(server: FakeServer, js: JetStreamContext, header: bytes, kind: type) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"", header)
    with pytest.raises(kind):
        await anext(js.get_batch("S"))
    with pytest.raises(kind):
        await anext(js.get_last_messages("S", ["a"], up_to_seq=9))
    assert body(server.pubs[1]) == {
        "multi_last": ["a"],
        "batch": 1024,
        "max_bytes": BATCH_BYTES,
        "up_to_seq": 9,
    }
    assert len(server.connection.mux) == 0


async def test_a_batch(server: FakeServer, js: JetStreamContext) -> None:
    def on_pub(pub: Pub) -> None:
        server.reply(pub, b"a", stored(3, 1))
        server.reply(pub, b"", stored(5, 0, line=b"NATS/1.0 204 EOB"))  # stored so by somebody
        server.reply(pub, b"", b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n")
        server.reply(pub, b"late", stored(6, 0))

    server.session.on_pub = on_pub
    found = [
        (m.seq, m.data, m.num_pending)
        async for m in js.get_batch("S", subject="s.>", seq=3, batch=9, max_bytes=7)
    ]
    assert found == [(3, b"a", 1), (5, b"", 0)]
    assert body(server.pubs[0]) == {"seq": 3, "next_by_subj": "s.>", "batch": 9, "max_bytes": 7}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"batch": 0}, ConfigError),
        ({"batch": "5"}, ConfigError),
        ({"max_bytes": -1}, ConfigError),
        ({"max_bytes": "5"}, ConfigError),
        ({"seq": -1}, ConfigError),
        ({"seq": True}, ConfigError),
        ({"subject": 5}, BadSubjectError),
        ({"subject": "a b"}, BadSubjectError),
    ],
)
async def test_batches_that_make_no_sense(
    server: FakeServer, js: JetStreamContext, options: dict[str, Any], kind: type
) -> None:
    """They would end the connection where the answers are counted."""
    with pytest.raises(kind):
        js.get_batch("S", **options)
    assert server.pubs == []


async def test_a_server_without_batches(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"a", stored(3))
    assert [m.seq async for m in js.get_batch("S")] == [3]


async def test_a_batch_that_stalls(server: FakeServer, js: JetStreamContext) -> None:
    js.timeout = 0.02
    server.session.on_pub = lambda pub: server.reply(pub, b"a", stored(3, 1))
    batch = js.get_batch("S")
    assert (await anext(batch)).seq == 3
    with pytest.raises(RequestTimeoutError):
        await anext(batch)
    assert len(server.connection.mux) == 0


async def test_the_connection_is_lost_during_a_batch(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"a", stored(3, 1))
    batch = js.get_batch("S")
    await anext(batch)
    server.lose()
    with pytest.raises(StaleConnectionError):
        await anext(batch)


async def test_the_client_is_closed_during_a_batch(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"a", stored(3, 1))
    batch = js.get_batch("S")
    await anext(batch)
    await server.client.close()
    await batch.aclose()  # raises nothing


async def test_a_batch_that_is_not_read_to_its_end(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"a", stored(3, 1))
    batch = js.get_batch("S")
    await anext(batch)
    await batch.aclose()
    assert len(server.connection.mux) == 0


# -- by time ----------------------------------------------------------------------------------------


EAST = timezone(timedelta(hours=2))


async def test_from_a_time_on(server: FakeServer, js: JetStreamContext) -> None:
    """An older server would not know the time; the subject makes it answer, with its first message."""
    answering_direct(server, stored(3), stored(3))
    asked = {"start_time": "2024-01-01T00:00:00+00:00", "next_by_subj": ">"}
    assert (await js.direct_get("S", start_time=NEW_YEAR.astimezone(EAST))).seq == 3
    assert body(server.pubs[0]) == asked
    with pytest.raises(UnsupportedFeatureError, match=r"start_time needs nats-server 2\.11\.0"):
        await js.direct_get("S", start_time=NEW_YEAR + timedelta(microseconds=1), next_by_subject="s.*")
    assert body(server.pubs[1])["next_by_subj"] == "s.*"
    message = {"subject": "a", "seq": 5, "time": "2024-01-01T00:00:00Z"}
    answering(server, *[{"message": message}] * 2)
    assert (await js.get_message("S", start_time=NEW_YEAR)).seq == 5
    assert body(server.pubs[2]) == asked
    with pytest.raises(UnsupportedFeatureError):
        await js.get_message("S", start_time=NEW_YEAR + timedelta(days=1))


async def test_a_batch_from_a_time_on(server: FakeServer, js: JetStreamContext) -> None:
    with pytest.raises(ConfigError):
        js.get_batch("S", seq=1, start_time=NEW_YEAR)
    server.session.on_pub = lambda pub: server.reply(pub, b"a", stored(3))
    assert [m.seq async for m in js.get_batch("S", start_time=NEW_YEAR, batch=5)] == [3]
    assert body(server.pubs[0]) == {
        "start_time": "2024-01-01T00:00:00+00:00",
        "next_by_subj": ">",
        "batch": 5,
        "max_bytes": BATCH_BYTES,
    }
    with pytest.raises(UnsupportedFeatureError):
        await anext(js.get_batch("S", start_time=NEW_YEAR + timedelta(days=1)))
    assert len(server.connection.mux) == 0


# -- the newest message of each subject, page by page -----------------------------------------------


async def test_pages_of_newest_messages(server: FakeServer, js: JetStreamContext) -> None:
    """The second page is as of the same moment as the first one; 2.11 counts one too few at the end."""
    pages(server, [stored(3, 2), stored(5, 1), eob(0, 5)], [stored(8, 0), eob(0, 8)])
    found = js.get_last_messages("S", ["s.a", "s.*.b"], up_to_time=NEW_YEAR + timedelta(days=1), max_bytes=7)
    assert [m.seq async for m in found] == [3, 5, 8]
    asked = {"multi_last": ["s.a", "s.*.b"], "max_bytes": 7}
    assert [body(pub) for pub in server.pubs] == [
        {**asked, "batch": 1024, "up_to_time": "2024-01-02T00:00:00+00:00"},
        {**asked, "batch": 1022, "seq": 6, "up_to_seq": 99},
    ]


async def test_at_most_as_many_as_were_asked_for(server: FakeServer, js: JetStreamContext) -> None:
    pages(server, [stored(3, 9), eob(9, 3)], [stored(5, 8), eob(8, 5)])
    assert [m.seq async for m in js.get_last_messages("S", ["s.a"], seq=2, batch=2)] == [3, 5]
    assert [body(pub)["batch"] for pub in server.pubs] == [2, 1]
    assert [body(pub)["seq"] for pub in server.pubs] == [2, 4]


async def test_as_many_as_the_server_allows(server: FakeServer, js: JetStreamContext) -> None:
    pages(server, [stored(3, 1), eob(1, 3)], [stored(5, 0), eob(0, 5)])
    assert [m.seq async for m in js.get_last_messages("S", ["s.a"], batch=0, max_bytes=0)] == [3, 5]
    assert [(body(pub)["batch"], body(pub)["max_bytes"]) for pub in server.pubs] == [(1024, 0), (1023, 0)]


@pytest.mark.parametrize("last", [[eob(5, 0)], [b"NATS/1.0 404 No Results\r\n\r\n"]])
async def test_pages_that_do_not_go_on(server: FakeServer, js: JetStreamContext, last: list[bytes]) -> None:
    pages(server, [stored(3, 9), eob(9, 3, up_to=None)], last)
    assert [m.seq async for m in js.get_last_messages("S", ["s.a"])] == [3]
    assert "up_to_seq" not in body(server.pubs[1])
    assert len(server.pubs) == 2


async def test_a_time_before_the_first_message(server: FakeServer, js: JetStreamContext) -> None:
    """nats-server 2.11.0 takes it for no limit."""
    pages(server, [stored(3, 0), eob(0, 3)])
    with pytest.raises(MessageNotFoundError):
        await anext(js.get_last_messages("S", ["s.a"], up_to_time=NEW_YEAR))
    assert len(server.connection.mux) == 0


async def test_servers_without_multi_get(server: FakeServer, js: JetStreamContext) -> None:
    """They find an empty request, or one for a sequence."""
    empty = b"NATS/1.0 408 Empty Request\r\n\r\n"
    pages(server, [stored(3)], [empty], [empty])
    with pytest.raises(UnsupportedFeatureError):
        await anext(js.get_last_messages("S", ["s.a"], seq=3))
    with pytest.raises(UnsupportedFeatureError):
        await anext(js.get_last_messages("S", ["s.a"], up_to_time=NEW_YEAR))
    with pytest.raises(APIError, match="408"):
        await anext(js.get_last_messages("S", ["s.a"]))


@pytest.mark.parametrize(
    "options",
    [
        {"subjects": "a"},
        {"batch": -1},
        {"max_bytes": -1},
        {"up_to_seq": 1, "up_to_time": NEW_YEAR},
        {"up_to_time": NEW_YEAR.replace(tzinfo=None)},
        {"up_to_time": 5},
        {"subjects": []},
        {"batch": "5"},
        {"max_bytes": 1.5},
        {"up_to_seq": -1},
        {"seq": "5"},
    ],
)
async def test_multi_gets_that_make_no_sense(
    server: FakeServer, js: JetStreamContext, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        js.get_last_messages("S", **{"subjects": ["a"], **options})
    assert server.pubs == []


async def test_pages_that_are_not_read_to_their_end(server: FakeServer, js: JetStreamContext) -> None:
    pages(server, [stored(3, 9)])
    found = js.get_last_messages("S", ["s.a"])
    await anext(found)
    await found.aclose()
    assert len(server.connection.mux) == 0


# -- rights per subject -----------------------------------------------------------------------------


async def test_the_subject_is_appended(server: FakeServer, js: JetStreamContext) -> None:
    """Not where it has wildcards, or is too long."""
    long = "s." + "x" * 4000
    answering_direct(server, *[stored(3)] * 3, stored(3, subject=long))
    for subject in ("s.a", "s.*", "s.>", long):
        await js.direct_get("S", last_by_subject=subject)
    assert [(pub.subject, bytes(pub.payload)) for pub in server.pubs] == [
        (b"$JS.API.DIRECT.GET.S.s.a", b""),
        (b"$JS.API.DIRECT.GET.S", b'{"last_by_subj":"s.*"}'),
        (b"$JS.API.DIRECT.GET.S", b'{"last_by_subj":"s.>"}'),
        (b"$JS.API.DIRECT.GET.S", b'{"last_by_subj":"%b"}' % long.encode()),
    ]


async def test_the_right_to_the_whole_stream(server: FakeServer, js: JetStreamContext) -> None:
    """Who has it, and no right to subjects, is refused once."""

    def on_pub(pub: Pub) -> None:
        if pub.subject == b"$JS.API.DIRECT.GET.S":
            server.reply(pub, b"", stored(3))
        else:
            asyncio.get_running_loop().call_soon(server.refuse, pub.subject.decode())

    server.session.on_pub = on_pub
    for _ in range(2):
        assert (await js.direct_get("S", last_by_subject="s.a")).seq == 3
    assert [pub.subject.decode()[len("$JS.API.DIRECT.GET.") :] for pub in server.pubs] == ["S.s.a", "S", "S"]


async def test_no_right_at_all(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: asyncio.get_running_loop().call_soon(
        server.refuse, pub.subject.decode()
    )
    for _ in range(2):
        with pytest.raises(PermissionsViolationError) as caught:
            await js.direct_get("S", last_by_subject="s.a")
        assert caught.value.subject == "$JS.API.DIRECT.GET.S"
    assert len(server.pubs) == 4  # a right that is granted later counts
