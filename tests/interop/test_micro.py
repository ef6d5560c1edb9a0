"""Small services (ADR-32) are not built in: nats-py's run on this client, behind a thin facade."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

import natsproto
from natsproto import Client, Msg, Subscription
from natsproto.errors import NatsError
from natsproto.server import LocalServer

pytest.importorskip("nats.micro")
from nats.aio.msg import Msg as TheirMsg
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import (
    EndpointConfig,
    ServiceConfig,
    ServiceInfo,
    ServicePing,
    ServiceStats,
)
from nats.nuid import NUID

pytestmark = [
    pytest.mark.peer,
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow"),  # nats-py's, on Python 3.12 and newer
]
Callback = Callable[[TheirMsg], Awaitable[None]]


class TheirSubscription:
    """A subscription whose messages go to a callback."""

    def __init__(self, client: TheirClient, ours: Subscription, callback: Callback) -> None:
        self._client = client
        self._ours = ours
        self._task = asyncio.create_task(self._run(callback))

    async def _run(self, callback: Callback) -> None:
        async for msg in self._ours:
            try:
                await callback(self._client.theirs(msg))
            except Exception as exc:  # nats-py gives it to error_cb
                self._client.errors.append(exc)

    async def unsubscribe(self) -> None:
        await self._ours.unsubscribe()
        await self._task

    async def drain(self) -> None:
        await self._ours.drain()
        await self._task


class TheirClient:
    """What nats-py's services need of a client."""

    def __init__(self, ours: Client) -> None:
        self._ours = ours
        self._nuid = NUID()
        self.errors: list[Exception] = []
        self.flush = ours.flush

    def theirs(self, msg: Msg) -> TheirMsg:
        headers = None if msg.headers is None else dict(msg.headers.items())
        client: Any = self
        return TheirMsg(client, msg.subject, msg.reply or "", bytes(msg.data), headers)

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        await self._ours.publish(subject, payload, reply=reply or None, headers=headers)

    async def subscribe(self, subject: str, queue: str = "", cb: Callback | None = None) -> TheirSubscription:
        assert cb is not None
        return TheirSubscription(self, await self._ours.subscribe(subject, queue=queue or None), cb)


@pytest.fixture
async def nc(server: LocalServer) -> AsyncIterator[Client]:
    async with natsproto.connect(server.url) as client:
        yield client


async def test_services_of_nats_py(nc: Client) -> None:
    client: Any = TheirClient(nc)

    async def add(request: Request) -> None:
        numbers = json.loads(request.data)
        if len(numbers) < 2:
            await request.respond_error("400", "two numbers are needed")
        else:
            await request.respond(json.dumps(sum(numbers)).encode(), headers={"Parts": str(len(numbers))})

    services = [await add_service(client, ServiceConfig("adder", "1.2.3", "adds")) for _ in range(3)]
    for service in services:
        await service.add_endpoint(EndpointConfig("add", add, subject="math.add"))
    for _ in range(30):
        answer = await nc.request("math.add", b"[1, 2, 3]")
        assert (answer.data, answer.headers["parts"]) == (b"6", "3")
    refused = await nc.request("math.add", b"[1]")
    assert (refused.data, refused.headers["Nats-Service-Error-Code"]) == (b"", "400")
    await nc.publish("math.add", b"[1, 2]")  # nobody waits for the answer
    await nc.publish("math.add", b"no JSON")

    async def all_of(verb: str, name: str = "") -> list[dict[str, Any]]:
        inbox = nc.new_inbox()
        async with await nc.subscribe(inbox, max_msgs=len(services)) as answers:
            await nc.publish(f"$SRV.{verb}{name}", b"", reply=inbox)
            return [json.loads(msg.data) async for msg in answers]

    pings = [ServicePing.from_dict(each) for each in await all_of("PING")]
    assert {ping.id for ping in pings} == {service.id for service in services}
    (info, *_) = [ServiceInfo.from_dict(each) for each in await all_of("INFO", ".adder")]
    assert [(each.name, each.subject, each.queue_group) for each in info.endpoints] == [
        ("add", "math.add", "q")
    ]
    stats = [ServiceStats.from_dict(each).endpoints[0] for each in await all_of("STATS", ".adder")]
    assert sum(each.num_requests for each in stats) == 33
    assert sum(each.num_errors for each in stats) == 2
    for service in services:
        await service.stop()
    with pytest.raises(NatsError):
        await nc.request("$SRV.PING.adder", b"", timeout=1)
    assert [str(error) for error in client.errors] == ["no reply subject set"] * 2
