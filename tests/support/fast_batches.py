"""A scripted leader that takes fast-ingest batches, behind a real client."""

from __future__ import annotations

import json
from typing import Any

from natsproto.aio.requests import RequestMux
from natsproto.jetstream.fast_batch import COMMIT, COMMIT_EOB, START
from natsproto.wire import Pub
from support.fake_session import FakeServer


def parts(pub: Pub) -> tuple[str, int, str, int, int]:
    """The batch of a message, its flow, gap mode, sequence and operation."""
    assert pub.reply is not None
    batch, flow, mode, seq, operation, suffix = pub.reply.decode().split(".")[-6:]
    assert suffix == "$FI"
    return batch, int(flow), mode, int(seq), int(operation)


def flow(seq: int, msgs: int) -> dict[str, Any]:
    return {"type": "ack", "seq": seq, "msgs": msgs}


def final(pub: Pub, count: int, seq: int | None = None) -> dict[str, Any]:
    return {"stream": "S", "seq": count + 100 if seq is None else seq, "batch": parts(pub)[0], "count": count}


def error(err_code: int, description: str = "no") -> dict[str, Any]:
    return {"code": 400, "err_code": err_code, "description": description}


def refusal(err_code: int) -> dict[str, Any]:
    return {"error": error(err_code), "stream": "S", "seq": 0}


def answer(
    server: FakeServer, pub: Pub, document: dict[str, Any] | bytes, header: bytes | None = None
) -> None:
    """Answer to the inbox of a batch, or a request of the API."""
    assert pub.reply is not None
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    if pub.reply.endswith(b".$FI"):
        inbox = pub.reply.rsplit(b".", 5)[0] + b".>"
        server.send(inbox, data, subject=pub.reply, header=header)
    else:
        server.reply(pub, document, header)


def batches(server: FakeServer) -> list[Any]:
    """The batches that still listen."""
    return [each for each in server.connection.handlers.values() if not isinstance(each, RequestMux)]


class Leader:
    """Accepts a batch, answers its commit; the rest is the test's."""

    def __init__(self, server: FakeServer, msgs: int = 2) -> None:
        self.server = server
        self.msgs = msgs
        server.session.on_pub = self.on_pub

    def on_pub(self, pub: Pub) -> None:
        _, _, _, seq, operation = parts(pub)
        if operation == START:
            answer(self.server, pub, flow(0, self.msgs))
        elif operation == COMMIT:
            answer(self.server, pub, final(pub, seq))
        elif operation == COMMIT_EOB:
            answer(self.server, pub, final(pub, seq - 1))

    def say(self, document: dict[str, Any] | bytes, header: bytes | None = None) -> None:
        """Answer the newest message."""
        answer(self.server, self.server.pubs[-1], document, header)
