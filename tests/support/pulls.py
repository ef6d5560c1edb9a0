"""A scripted server with one pull consumer, behind a real client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from natsproto.errors import NatsError
from natsproto.jetstream.api.models import ConsumerInfo
from natsproto.jetstream.pull import PullConsumer
from natsproto.wire import Pub
from support.fake_session import FakeServer


class Pulled:
    """A pull consumer; ``answers`` say what each request gets, in order, and then the last one again."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.server = FakeServer()
        self.reported: list[NatsError] = []
        self.server.connection.report = self.reported.append  # type: ignore[method-assign]
        self.info = {"stream_name": "S", "name": "c", "config": config}
        self.exists = True
        self.may_ask = True
        self.asked = 0  # how often the server was asked for its info
        self.seq = 0
        self.requests: list[dict[str, Any]] = []
        self.pubs: list[Pub] = []
        self.answers: list[Callable[[Pub], None]] = [lambda pub: None]
        self.consumer = PullConsumer(
            self.server.client.jetstream(timeout=0.05), ConsumerInfo.from_json(self.info)
        )
        self.listen()

    def now(self, info: dict[str, Any] | None) -> None:
        """Change what the server knows of the consumer; ``None``: it is gone."""
        self.exists = info is not None
        self.info = {**self.info, **(info or {})}

    def listen(self) -> None:
        self.server.session.on_pub = self.on_pub

    def on_pub(self, pub: Pub) -> None:
        if b".MSG.NEXT." in pub.subject:
            self.requests.append(json.loads(bytes(pub.payload)))
            self.pubs.append(pub)
            (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(pub)
        elif b".CONSUMER.INFO." in pub.subject:
            self.asked += 1
            if not self.may_ask:
                subject = pub.subject.decode()
                asyncio.get_running_loop().call_soon(self.server.refuse, subject)
                return
            missing = {"error": {"code": 404, "err_code": 10014, "description": "consumer not found"}}
            self.server.reply(pub, self.info if self.exists else missing)

    def message(self, pub: Pub, header: bytes | None = None) -> None:
        assert pub.reply is not None
        self.seq += 1
        reply = b"$JS.ACK.S.c.1.%d.%d.1700000000000000000.0" % (self.seq, self.seq)
        self.server.send(pub.reply, b"m%d" % self.seq, subject=b"s.a", reply=reply, header=header)

    def status(self, pub: Pub, text: str) -> None:
        assert pub.reply is not None
        self.server.send(pub.reply, header=b"NATS/1.0 " + text.encode() + b"\r\n\r\n")

    def says(self, *steps: str | int) -> Callable[[Pub], None]:
        """An answer: so many messages for a number, a status for a text."""

        def answer(pub: Pub) -> None:
            for step in steps:
                if isinstance(step, str):
                    self.status(pub, step)
                for _ in range(step if isinstance(step, int) else 0):
                    self.message(pub)

        return answer

    async def read(self, count: int, **options: Any) -> list[bytes]:
        """The first messages of an iteration."""
        found: list[bytes] = []
        messages = self.consumer.messages(**options)
        async with asyncio.timeout(20):
            async for msg in messages:
                found.append(msg.data)
                if len(found) == count:
                    break
        await messages.aclose()
        return found
