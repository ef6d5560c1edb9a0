"""Requests to the API against scripted answers: refusals, limits, listings page by page."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from natsproto.errors import (
    BadSubjectError,
    ConfigError,
    InvalidNameError,
    MaxPayloadError,
    NoRespondersError,
    PermissionsViolationError,
    RemoteProtocolError,
    RequestTimeoutError,
)
from natsproto.jetstream.api.errors import (
    JetStreamNotEnabledError,
    StreamNotFoundError,
)
from natsproto.jetstream.context import JetStreamContext
from natsproto.wire import Pub
from support.api_answers import NOBODY, answering, body
from support.api_documents import api_answer
from support.fake_session import FakeServer, until


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=0.5)


def test_domain_and_prefix_exclude_each_other(server: FakeServer) -> None:
    with pytest.raises(ConfigError):
        server.client.jetstream(domain="a", prefix="b")
    for options in ({"domain": "a.b"}, {"domain": "a b"}, {"domain": ""}):
        with pytest.raises(InvalidNameError):
            server.client.jetstream(**options)
    for prefix in ("a b", "a.*", "a..b", "a.\r\nPUB x 0", ""):
        with pytest.raises(BadSubjectError):
            server.client.jetstream(prefix=prefix)


async def test_large_answers(server: FakeServer, js: JetStreamContext) -> None:
    """The pages of listings and messages may be large, others only if the caller says so."""
    large = {"more": "x" * (5 << 20)}
    message = {"subject": "a", "seq": 1, "time": "2024-01-01T00:00:00Z"}
    answering(
        server,
        {"config": {"name": "S"}, "total": 1, "state": {"num_subjects": 1, "subjects": {"a": 1}}, **large},
        {"streams": ["S"], **large},
        {"streams": [], **large},
        {"message": message, **large},
        large,
        large,
    )
    assert await js.stream_subjects("S") == {"a": 1}
    assert await js.stream_names() == ["S"]
    assert await js.streams() == []
    assert (await js.get_message("S", seq=1)).seq == 1
    assert (await js.request("STREAM.OTHER", limit=6 << 20))["more"] == large["more"]
    with pytest.raises(RemoteProtocolError, match="bytes is refused"):
        await js.request("STREAM.OTHER")


async def test_whoever_stores_an_answer_does_not_answer(server: FakeServer, js: JetStreamContext) -> None:
    """A peer can have its own stored message sent to the inbox of a request, by a direct get.

    Or the acknowledgement of its own stream, what its own consumer answers, and what another call answers.
    """

    def on_pub(pub: Pub) -> None:
        forged = {"config": {"name": "S", "republish": {"dest": "leak.>"}}}
        server.reply(pub, forged, b"NATS/1.0\r\nA: b\r\n\r\n")
        server.reply(pub, b'{"stream":"OWN","seq":7}')
        server.reply(pub, b'{"error":{"code":400,"err_code":10071,"description":"x"},"stream":"OWN","seq":0}')
        server.reply(pub, b"")
        server.reply(pub, api_answer(b"$JS.API.STREAM.NAMES", {"total": 0, "streams": []}) or b"")
        server.reply(pub, api_answer(b"$JS.API.STREAM.MSG.GET.OWN", {"error": {"code": 404}}) or b"")
        server.reply(pub, {"config": {"name": "S"}})

    server.session.on_pub = on_pub
    answer = await js.request("STREAM.INFO.S")
    assert answer["config"] == {"name": "S"}


async def test_answers_about_something_else(server: FakeServer, js: JetStreamContext) -> None:
    """A peer may ask about its own stream, and have the answer sent to our inbox: we ask again."""
    other: dict[str, Any] = {"config": {"name": "T"}}
    answering(server, other, {"total": 0}, {"config": {"name": "S"}})
    assert (await js.request("STREAM.INFO.S"))["config"] == {"name": "S"}
    answers: list[tuple[str, dict[str, Any]]] = [
        ("STREAM.UPDATE.S", other),
        ("CONSUMER.CREATE.S.c.s.a", {"stream_name": "T", "name": "c"}),
        ("CONSUMER.CREATE.S.c", {"stream_name": "S", "name": "d"}),
    ]
    for suffix, answer in answers:
        answering(server, answer)
        with pytest.raises(RemoteProtocolError, match="about another stream or consumer"):
            await js.request(suffix, {})
    answering(server, *[other] * 10)
    with pytest.raises(RemoteProtocolError, match=r"'STREAM\.INFO\.S' is about another"):
        await js.request("STREAM.INFO.S")


async def test_a_stream_of_the_same_name_in_another_domain(server: FakeServer) -> None:
    def info(**more: Any) -> dict[str, Any]:
        return {"config": {"name": "S"}, **more}

    client = server.client
    asked, own = (
        [client.jetstream(domain="leaf"), client.jetstream(prefix="$JS.leaf.API")],
        client.jetstream(),
    )
    server.session.info["domain"] = "leaf"
    for context in (*asked, own):
        answering(server, info(domain="hub"), info(domain="leaf", ts="ours"))
        assert (await context.request("STREAM.INFO.S"))["ts"] == "ours"
    for context in (*asked, own):
        answering(server, info(ts="of a hub without a domain"), info(domain="leaf", ts="ours"))
        assert (await context.request("STREAM.INFO.S"))["ts"] == "ours"
        for verb in ("CREATE", "UPDATE"):
            answering(server, info(domain="hub"))
            with pytest.raises(RemoteProtocolError, match="about another stream"):
                await context.request(f"STREAM.{verb}.S", {})
            answering(server, info(ts="ours"))
            assert await context.request(f"STREAM.{verb}.S", {}), "few of these say it"
    del server.session.info["domain"]
    answering(server, info(domain="leaf"), info(ts="ours"))
    assert (await own.request("STREAM.INFO.S"))["ts"] == "ours"
    assert own.answers_are_known
    del server.session.info["jetstream"]
    for context in (own, client.jetstream(prefix="acme.API")):
        answering(server, info(domain="any"))
        assert (await context.request("STREAM.INFO.S"))["domain"] == "any"
        assert not context.answers_are_known


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """All answers to a request come within 0.05 s."""
    monkeypatch.setattr("natsproto.jetstream.all_answers.WAIT", 0.05)


def answered_by(server: FakeServer, info: dict[str, Any], *accounts: dict[str, Any]) -> None:
    """Answer the info of a stream with ``info``, and that of the account with each of ``accounts``."""

    def on_pub(pub: Pub) -> None:
        for answer in accounts if pub.subject.endswith(b".API.INFO") else (info,):
            server.reply(pub, answer)

    server.session.on_pub = on_pub


@pytest.mark.usefixtures("soon")
async def test_an_account_whose_domain_is_not_the_servers(server: FakeServer) -> None:
    """nats-server's ``default_js_domain``: ``$JS.API`` of the account leads to the hub."""
    js = server.client.jetstream()
    server.session.info["domain"] = "leaf"
    info = {"config": {"name": "S"}, "domain": "hub"}
    answered_by(server, info, {"domain": "hub"})
    assert (await js.request("STREAM.INFO.S"))["domain"] == "hub"
    assert not js.answers_are_known, "nothing but answers tells it"
    answering(server, {**info, "domain": "leaf"}, info)
    assert (await js.request("STREAM.INFO.S"))["domain"] == "hub", "it is known now"
    answered_by(server, {**info, "domain": "leaf"}, {"domain": "hub"})
    with pytest.raises(RemoteProtocolError, match="about another stream"):
        await js.request("STREAM.INFO.S")


async def test_a_refusal_tells_the_domain_that_the_api_is_mapped_to(server: FakeServer) -> None:
    """To a user who may ask for the stream, and not for the account."""
    js = server.client.jetstream()
    server.session.info["domain"] = "leaf"
    refused = "$JS.hub.API.INFO"

    def on_pub(pub: Pub) -> None:
        if pub.subject == b"$JS.API.INFO":
            server.refuse(refused)
        else:
            server.reply(pub, {"config": {"name": "S"}, "domain": "hub"})

    for refused in ("$JS.API.INFO", "$JS.other.API.INFO"):
        server.session.on_pub = on_pub
        with pytest.raises(PermissionsViolationError) as caught:
            await js.request("STREAM.INFO.S")
        assert caught.value.subject == refused
    refused = "$JS.hub.API.INFO"
    assert (await js.request("STREAM.INFO.S"))["domain"] == "hub"
    assert not js.answers_are_known


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("accounts", [("hub", "leaf"), ("leaf", "hub"), ("hub", ""), ()])
@pytest.mark.parametrize("domain", ["leaf", None])
async def test_no_domain_is_learnt_while_another_one_answers(
    server: FakeServer, domain: str | None, accounts: tuple[str, ...]
) -> None:
    """Somebody who sees the requests has them answered by the hub; the leaf answers later."""
    js = server.client.jetstream(domain=domain)
    server.session.info["domain"] = "leaf"
    info = {"config": {"name": "S"}, "domain": "hub"}
    answered_by(server, info, *({"domain": each} if each else {} for each in accounts))
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="about another stream"):
            await js.request("STREAM.INFO.S")
    assert js.answers_are_known
    answering(server, info, {**info, "domain": "leaf"})
    assert (await js.request("STREAM.INFO.S"))["domain"] == "leaf"


@pytest.mark.usefixtures("soon")
async def test_an_imported_api_that_looks_like_a_domains(server: FakeServer) -> None:
    """``$JS.acme.API``: nats-server lets it be imported so."""
    for context in (server.client.jetstream(prefix="$JS.acme.API"), server.client.jetstream(domain="acme")):
        info = {"config": {"name": "S"}}
        answered_by(server, info, {})
        assert await context.request("STREAM.INFO.S")
        answering(server, info)
        assert await context.request("STREAM.INFO.S")


@pytest.mark.usefixtures("soon")
async def test_a_stream_of_the_same_name_that_was_created_at_another_time(server: FakeServer) -> None:
    """Of another account, whose API is imported, too; or the stream was deleted and created again."""
    js = server.client.jetstream()
    js.known_streams = {"S": "2026-01-01T00:00:00Z"}

    def info(created: str, name: str = "S") -> dict[str, Any]:
        return {"config": {"name": name}, "created": created}

    answering(server, info("2025-01-01T00:00:00Z"), info("2026-01-01T00:00:00Z"))
    assert (await js.request("STREAM.INFO.S"))["created"] == "2026-01-01T00:00:00Z"
    answering(server, info("2025-01-01T00:00:00Z", "T"))
    assert await js.request("STREAM.INFO.T"), "another one"
    answering(server, info("2027-01-01T00:00:00Z"))
    assert await js.request("STREAM.CREATE.S", {}), "it is created now"
    for suffix in ("STREAM.INFO.S", "STREAM.UPDATE.S"):
        answering(server, *[info("2027-01-01T00:00:00Z")] * 10)
        with pytest.raises(StreamNotFoundError, match="deleted and created again"):
            await js.request(suffix, {})
        server.session.on_pub = None


@pytest.mark.usefixtures("soon")
async def test_the_own_info_comes_after_others(server: FakeServer, js: JetStreamContext) -> None:
    """Whoever sees the question has another API answer it at once, whose server is nearer."""
    js.known_streams = {"S": "ours"}
    late: dict[str, Any] = {}

    def on_pub(pub: Pub) -> None:
        for answer in ({"config": {"name": "S"}, "created": "theirs"}, b"{}", b"x"):
            server.reply(pub, answer)
        asyncio.get_running_loop().call_later(0.01, server.reply, pub, late)

    server.session.on_pub = on_pub
    late = {"config": {"name": "S"}, "created": "ours"}
    for _ in range(3):
        assert (await js.request("STREAM.INFO.S"))["created"] == "ours"
    assert len(server.pubs) == 6
    late = {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
    with pytest.raises(StreamNotFoundError, match="stream not found"):
        await js.request("STREAM.INFO.S")


@pytest.mark.parametrize("options", [{"seq": 5}, {"last_by_subject": "s.a"}])
async def test_another_message_than_was_asked_for(
    server: FakeServer, js: JetStreamContext, options: dict[str, Any]
) -> None:
    answering(server, {"message": {"subject": "s.b", "seq": 6, "time": "2024-01-01T00:00:00Z"}})
    with pytest.raises(RemoteProtocolError, match="another message was asked for"):
        await js.get_message("S", **options)


async def test_a_list_of_all_subjects_has_their_number(server: FakeServer, js: JetStreamContext) -> None:
    def page(subjects: int, total: int, offset: int = 0) -> dict[str, Any]:
        found = {f"s.{number}": 1 for number in range(offset, subjects)}
        state = {"num_subjects": 3, "subjects": found}
        return {"config": {"name": "S"}, "state": state, "total": total, "offset": offset}

    lacking: list[dict[str, Any]] = [{**page(1, 1), "state": state} for state in ({}, None)]
    answering(server, page(1, 1), page(3, 3, offset=2), lacking[0], lacking[1], page(3, 3))
    assert await js.stream_subjects("S") == {"s.0": 1, "s.1": 1, "s.2": 1}
    answering(server, page(2, 2))
    assert len(await js.stream_subjects("S", "s.*")) == 2


async def test_jetstream_is_off(server: FakeServer, js: JetStreamContext) -> None:
    answering(server, NOBODY, NOBODY)
    with pytest.raises(NoRespondersError, match="leader"):
        await js.account_info()
    del server.session.info["jetstream"]
    with pytest.raises(JetStreamNotEnabledError):
        await js.account_info()


async def test_a_request_above_max_payload(server: FakeServer, js: JetStreamContext) -> None:
    server.connection.max_payload = 50
    with pytest.raises(MaxPayloadError):
        await js.create_stream({"name": "S", "description": "x" * 100})
    assert server.pubs == []


async def test_permissions_violation_of_a_request(server: FakeServer, js: JetStreamContext) -> None:
    task = asyncio.ensure_future(js.stream_info("S"))
    await until(lambda: server.pubs)
    server.connection.server_error(
        server.session,  # type: ignore[arg-type]
        'Permissions Violation for Publish to "$JS.API.STREAM.INFO.S"',
    )
    with pytest.raises(PermissionsViolationError):
        await task


async def test_pages_of_names(server: FakeServer, js: JetStreamContext) -> None:
    names = [f"S{n}" for n in range(2500)]

    def on_pub(pub: Pub) -> None:
        offset = body(pub)["offset"]
        server.reply(
            pub, {"total": 2500, "offset": offset, "limit": 1024, "streams": names[offset : offset + 1024]}
        )

    server.session.on_pub = on_pub
    assert await js.stream_names() == names
    assert [body(pub) for pub in server.pubs] == [{"offset": 0}, {"offset": 960}, {"offset": 1920}]
    server.pubs.clear()
    await js.stream_names("a.>")
    assert body(server.pubs[0]) == {"subject": "a.>", "offset": 0}


@pytest.mark.parametrize(("gone", "pages"), [(0, 3), (50, 3), (500, 5)])
async def test_names_that_go_between_two_pages(
    server: FakeServer, js: JetStreamContext, gone: int, pages: int
) -> None:
    """They move the others forward: none that stays may be missing."""
    names = [f"S{n:04}" for n in range(2500)]

    def on_pub(pub: Pub) -> None:
        offset = body(pub)["offset"]
        page = names[offset : offset + 1024]
        server.reply(pub, {"total": len(names), "offset": offset, "limit": 1024, "streams": page})
        if len(server.pubs) == 1:
            del names[:gone]

    server.session.on_pub = on_pub
    found = await js.stream_names()
    assert set(names) <= set(found)
    assert len(server.pubs) == pages


async def test_names_that_go_all_the_time(
    server: FakeServer, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("natsproto.jetstream.requests.LIST_PAUSE", 0.0)
    names = [f"S{n:05}" for n in range(20_000)]

    def on_pub(pub: Pub) -> None:
        offset = body(pub)["offset"]
        page = names[offset : offset + 1024]
        server.reply(pub, {"total": len(names), "offset": offset, "limit": 1024, "streams": page})
        del names[:100]

    server.session.on_pub = on_pub
    with pytest.raises(RequestTimeoutError, match="no list of the names of streams had all of them"):
        await js.stream_names()


async def test_a_name_on_two_pages(server: FakeServer, js: JetStreamContext) -> None:
    """A stream that was made meanwhile moves the others on."""
    answering(server, {"total": 5, "streams": ["a", "b", "c"]}, {"total": 5, "streams": ["c", "d"]})
    assert await js.stream_names() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("answer", [{}, {"total": 5, "streams": None}, {"total": 0, "streams": []}])
async def test_no_names(server: FakeServer, js: JetStreamContext, answer: dict[str, Any]) -> None:
    answering(server, answer)
    assert await js.stream_names() == []
