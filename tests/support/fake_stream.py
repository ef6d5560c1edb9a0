"""A scripted stream behind a real client, for what reads it through an ordered consumer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from natsproto.jetstream.ordered import OrderedConsumer
from natsproto.wire import Pub
from support.fake_session import FakeServer, turns

CREATED = "2024-01-01T00:00:00Z"
FC = b"NATS/1.0 100 FlowControl Request\r\n\r\n"


class Stream:
    """Answers what an ordered consumer asks; delivers what the test says."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.created = CREATED
        self.pending = 0
        self.last_seq = 0
        self.configs: list[dict[str, Any]] = []
        self.live: dict[str, dict[str, Any]] = {}
        self.answer: Callable[[str, Pub], bool] = lambda verb, pub: False
        self.answers: list[bytes] = []
        self.attach()

    def attach(self) -> None:
        self.server.session.on_pub = self.on_pub

    def reconnect(self) -> None:
        self.server.lose()
        self.server.connect()
        self.attach()

    def on_pub(self, pub: Pub) -> None:
        subject = pub.subject.decode()
        if subject.startswith("$JS.FC."):
            self.answers.append(pub.subject)
            return
        verb = ".".join(subject.split(".")[2:4])
        if not self.answer(verb, pub):
            self.default(verb, pub)

    def default(self, verb: str, pub: Pub) -> None:
        name = pub.subject.decode().split(".")[-1]
        if verb == "CONSUMER.CREATE":
            name = pub.subject.decode().split(".")[5]  # the filter follows
            config = json.loads(bytes(pub.payload))["config"]
            self.configs.append(config)
            self.live[name] = config
            document: dict[str, Any] = {"stream_name": "S", "name": name, "config": config}
            document |= {
                "num_pending": self.pending,
                "delivered": {"consumer_seq": 0, "stream_seq": self.last_seq},
            }
        elif verb == "CONSUMER.DELETE":
            document = {"success": self.live.pop(name, None) is not None}
        else:
            document = {
                "config": {"name": "S"},
                "state": {"last_seq": self.last_seq},
                "created": self.created,
            }
        self.reply(pub, document)

    def reply(self, pub: Pub, document: dict[str, Any]) -> None:
        asyncio.get_running_loop().call_soon(self.server.reply, pub, document)

    def error(self, pub: Pub, err_code: int, code: int = 404) -> bool:
        self.reply(pub, {"error": {"code": code, "err_code": err_code, "description": "no"}})
        return True

    def deliver(
        self,
        stream_seq: int,
        consumer_seq: int,
        *,
        pending: int = 0,
        payload: bytes = b"x",
        at: int = -1,
        subject: bytes = b"s.a",
    ) -> None:
        config = self.configs[at]
        self.server.send(
            config["deliver_subject"].encode(),
            payload,
            subject=subject,
            reply=b"$JS.ACK.S.%b.1.%d.%d.1700000000000000000.%d"
            % (config["name"].encode(), stream_seq, consumer_seq, pending),
        )

    def heartbeat(self, last_consumer: int, *, stalled: bytes | None = None, at: int = -1) -> None:
        header = (
            b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: %d\r\nNats-Last-Stream: 0\r\n"
            % last_consumer
        )
        if stalled is not None:
            header += b"Nats-Consumer-Stalled: %b\r\n" % stalled
        self.server.send(self.inbox(at), header=header + b"\r\n")

    def flow_control(self, reply: bytes, at: int = -1) -> None:
        self.server.send(self.inbox(at), header=FC, reply=reply)

    def inbox(self, at: int = -1) -> bytes:
        inbox: bytes = self.configs[at]["deliver_subject"].encode()
        return inbox


class Reader:
    """An ordered consumer and what it handed on."""

    def __init__(self, stream: Stream, **options: Any) -> None:
        self.seqs: list[int] = []
        self.failures: list[BaseException] = []
        self.idle = 0
        self.restarts = 0
        options = {"heartbeat": 30.0, "filter_subject": "s.>", **options}
        options.setdefault("on_message", lambda msg, delivery: self.seqs.append(delivery.stream_seq))
        options.setdefault("on_idle", self._on_idle)
        options.setdefault("on_restart", self._on_restart)
        self.consumer = OrderedConsumer(
            stream.server.client.jetstream(timeout=0.5),
            "S",
            on_failure=self.failures.append,
            **options,
        )

    def _on_idle(self) -> None:
        self.idle += 1

    def _on_restart(self) -> None:
        self.restarts += 1


async def finish(stream: Stream, reader: Reader) -> None:
    """Nothing may be left: neither on the server nor here."""
    await reader.consumer.stop()
    await turns()
    assert stream.live == {}
    left = [
        h.subject
        for h in stream.server.connection.handlers.values()
        if h is not stream.server.connection._mux
    ]
    assert left == []
    assert len(stream.server.connection.mux) == 0
