"""One request, many answers, on both servers: gathered from services, and streamed by one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import natsproto
import objstore.sync
from natsproto.errors import NatsError, NoRespondersError, StaleConnectionError
from natsproto.jetstream.api.models import StreamConfig
from natsproto.server import LocalServer


@asynccontextmanager
async def services(nc: natsproto.Client, subject: str, count: int, *answers: bytes) -> AsyncIterator[None]:
    """Several that all answer each request."""

    async def serve(number: int, questions: natsproto.Subscription) -> None:
        async for msg in questions:
            for answer in answers or (b"%d" % number,):
                await msg.respond(answer)

    subscriptions = [await nc.subscribe(subject) for _ in range(count)]
    await nc.flush()
    async with asyncio.TaskGroup() as tasks:
        for number, subscription in enumerate(subscriptions):
            tasks.create_task(serve(number, subscription))
        yield
        for subscription in subscriptions:
            await subscription.unsubscribe()


async def test_gathered(nc: natsproto.Client, server: LocalServer) -> None:
    async with natsproto.connect(server.url) as other, services(other, "ping", 5):
        for options in ({"max_messages": 5}, {"stall": 0.2}):
            responses = nc.request_many("ping", timeout=20, **options)
            assert sorted([msg.data async for msg in responses]) == [b"0", b"1", b"2", b"3", b"4"]
            assert responses.ended_by == next(iter(options))
        assert len([msg async for msg in nc.request_many("ping", timeout=0.3)]) == 5
        assert len([msg async for msg in nc.request_many("ping", max_messages=3)]) == 3
        await nc.flush()
        assert nc.stats.errors == 0  # the other two were dropped


async def test_streamed(nc: natsproto.Client) -> None:
    pieces = [b"%d" % number * 1000 for number in range(1000)]
    async with services(nc, "stream", 1, *pieces, bytes(100_000), b""):
        responses = nc.request_many("stream", timeout=30, sentinel=lambda msg: not msg.data)
        assert [msg.data async for msg in responses] == [*pieces, bytes(100_000)]
        assert responses.ended_by == "sentinel"


async def test_nobody(nc: natsproto.Client) -> None:
    with pytest.raises(NoRespondersError):
        async for _ in nc.request_many("nobody", timeout=60):
            pass


async def test_a_batch_of_stored_messages(
    nc: natsproto.Client, server: LocalServer, bucket_name: str
) -> None:
    """The server ends it by a status; nats-server 2.9 sends one message and says nothing of an end."""
    js = nc.jetstream()
    await js.create_stream(StreamConfig(name=bucket_name, subjects=[bucket_name], allow_direct=True))
    try:
        for number in range(3):
            await js.publish(bucket_name, b"%d" % number)
        request = b'{"seq":1,"next_by_subj":">","batch":10}'
        responses = nc.request_many(f"$JS.API.DIRECT.GET.{bucket_name}", request, timeout=20, stall=0.3)
        found = [msg.data async for msg in responses]
        if server.binary.version.startswith("2.9"):
            assert (found, responses.ended_by) == ([b"0"], "stall")
        else:
            assert (found, responses.ended_by) == ([b"0", b"1", b"2"], "status")
            assert responses.last is not None
            assert responses.last.status == 204
    finally:
        await js.delete_stream(bucket_name)


async def test_the_server_goes_away(server: LocalServer) -> None:
    async with (
        LocalServer(binary=server.binary.path, jetstream=False) as own,
        natsproto.connect(own.url) as nc,
        natsproto.connect(own.url) as other,
    ):
        await other.subscribe("mute")
        await other.flush()
        responses = nc.request_many("mute", timeout=60)
        reading = asyncio.ensure_future(anext(responses))
        await nc.flush()
        own.kill()
        with pytest.raises(StaleConnectionError):
            await reading


def test_without_asyncio(server: LocalServer) -> None:
    with objstore.sync.connect(server.url) as nc:
        questions = nc.subscribe("ask")
        nc.flush()

        def serve() -> None:
            for msg in questions:
                for number in range(600):
                    msg.respond(b"%d" % number)
                msg.respond(b"")

        service = threading.Thread(target=serve)
        service.start()
        wanted = [b"%d" % number for number in range(600)]
        where: set[threading.Thread] = set()

        def sentinel(msg: objstore.sync.Msg) -> bool:
            where.add(threading.current_thread())
            return not msg.data

        responses = nc.request_many("ask", timeout=30, sentinel=sentinel)
        assert [msg.data for msg in responses] == wanted
        assert responses.ended_by == "sentinel"
        assert responses.last is not None
        assert responses.last.data == b""
        assert where == {threading.current_thread()}
        assert [msg.data for msg in nc.request_many("ask", max_messages=600)] == wanted
        with nc.request_many("ask", timeout=60) as some:
            assert next(some).data == b"0"
        assert (some.ended_by, some.last, list(some)) == ("closed", None, [])
        with pytest.raises(NoRespondersError):
            list(nc.request_many("nobody"))
        for wrong in ({"stall": 0}, {"sentinel": True}):
            with pytest.raises(NatsError):
                nc.request_many("ask", **wrong)  # type: ignore[arg-type]
        questions.unsubscribe()
        service.join(20)
        assert not service.is_alive()
