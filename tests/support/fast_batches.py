"""A scripted leader that takes fast-ingest batches, behind a real client."""

from __future__ import annotations

import base64
import json
from typing import Any

from natsproto.aio.requests import RequestMux
from natsproto.jetstream.fast_batch import COMMIT, COMMIT_EOB, PING, START
from natsproto.wire import Pub
from support.api_answers import body
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


NOT_FOUND = {"error": {"code": 404, "err_code": 10037, "description": "no message found"}}


class Stream:
    """What is stored, as its leader tells: message ``n`` of the newest batch as ``n + 100``.

    Attributes:
        others: by sequence, what else is stored there: a subject and a payload; ``None``: nothing.
        answers: what is answered instead, one after the other; bytes are a status line.
        asked: the requests.
    """

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.others: dict[int, tuple[str, bytes] | None] = {}
        self.answers: list[dict[str, Any] | bytes] = []
        self.asked: list[dict[str, Any]] = []
        server.session.aside = self.aside

    def aside(self, pub: Pub) -> bool:
        if b".STREAM.INFO." in pub.subject:
            self.server.reply(pub, {"config": {"name": "S"}})
            return True
        if b".STREAM.MSG.GET." not in pub.subject:
            return False
        self.asked.append(body(pub))
        answer = self.answers.pop(0) if self.answers else self.find(self.asked[-1])
        if isinstance(answer, bytes):
            self.server.reply(pub, b"", answer)
        else:
            self.server.reply(pub, answer)
        return True

    def find(self, selector: dict[str, Any]) -> dict[str, Any]:
        stored: dict[int, tuple[str, bytes] | None] = {}
        for pub in self.server.pubs:
            if pub.reply is not None and pub.reply.endswith(b".$FI"):
                *_, number, operation = parts(pub)
                if operation not in (COMMIT_EOB, PING):
                    stored[number + 100] = pub.subject.decode(), bytes(pub.payload)
        stored |= self.others
        wanted = selector.get("next_by_subj")
        for seq in sorted(stored) if wanted else [selector["seq"]]:
            message = stored.get(seq)
            if seq >= selector["seq"] and message is not None and wanted in (None, message[0]):
                return stored_at(seq, *message)
        return NOT_FOUND


def stored_at(seq: int, subject: str, data: bytes) -> dict[str, Any]:
    """A message, as the leader tells it."""
    payload = base64.b64encode(data).decode()
    return {"message": {"subject": subject, "seq": seq, "data": payload, "time": "2024-01-01T00:00:00Z"}}


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
