"""Frames of a test's choice: hooks for the fault proxy, and what no client library sends.

The hooks act on the n-th publish of a kind or its answer, and tell what the client deletes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from natsproto.testing import FaultProxy
from natsproto.wire import Msg, Pub
from objstore import ObjectStore

Act = Callable[[Any, bytes], Any]


def message(event: Msg, payload: bytes | dict[str, Any], header: bytes = b"") -> bytes:
    """The frame of another message that arrives where ``event`` does."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    if header:
        sizes = b"%d %d" % (len(header), len(header) + len(data))
        return b"HMSG %b %b %b\r\n%b%b\r\n" % (event.subject, event.sid, sizes, header, data)
    return b"MSG %b %b %d\r\n%b\r\n" % (event.subject, event.sid, len(data), data)


async def send_raw(url: str, frames: bytes, **connect: str) -> list[bytes]:
    """Send these bytes to the server as a client would; return its errors once it has passed them on."""
    errors = []
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    document = json.dumps({"headers": True, "verbose": False, **connect})
    writer.write(b"CONNECT %b\r\n%bPING\r\n" % (document.encode(), frames))
    while (line := await reader.readline()) != b"PONG\r\n":
        assert line, errors
        if line.startswith(b"-ERR"):
            errors.append(line)
    writer.close()
    await writer.wait_closed()
    return errors


def own(store: ObjectStore, seq: int, **extra: Any) -> dict[str, Any]:
    return {"stream": f"OBJ_{store.bucket}", "seq": seq, **extra}


def refusal(store: ObjectStore, code: int, err_code: int) -> dict[str, Any]:
    return own(store, 0, error={"code": code, "err_code": err_code, "description": "no"})


FORGED: dict[str, Callable[[ObjectStore], Any]] = {
    "another object's": lambda store: own(store, 3),
    "the first": lambda store: own(store, 1),
    "one to come": lambda store: own(store, 10**9),
    "nothing": lambda store: own(store, 0),
    "below nothing": lambda store: own(store, -5),
    "duplicate": lambda store: own(store, 3, duplicate=True),
    "another domain": lambda store: own(store, 3, domain="elsewhere"),
    "another stream": lambda store: {"stream": "OTHER", "seq": 3},
    "full": lambda store: refusal(store, 503, 10077),
    "lost race": lambda store: refusal(store, 400, 10071),
    "sealed": lambda store: refusal(store, 400, 10109),
    "no leader": lambda store: refusal(store, 503, 10008),
    "text": lambda store: b"+OK",
    "empty": lambda store: b"",
    "503": lambda store: None,
}


def forged_frame(event: Msg, what: Any) -> bytes:
    return message(event, b"", b"NATS/1.0 503\r\n\r\n") if what is None else message(event, what)


class Traffic:
    """Both hooks of a proxy. Give it what to do with which frame; it notes every deletion by sequence.

    Attributes:
        deleted: sequences the client asked to delete.
        purged: filters of the purges the client asked for.
        hits: frames that were acted upon.
        counts: publishes below each prefix.
        hit: set with the first of them.
    """

    def __init__(self, proxy: FaultProxy, store: ObjectStore) -> None:
        self.chunks = f"$O.{store.bucket}.C.".encode()
        self.metas = f"$O.{store.bucket}.M.".encode()
        self.deleted: list[int] = []
        self.purged: list[str | None] = []
        self.hits = 0
        self.hit = asyncio.Event()
        self._sends: list[tuple[bytes, Callable[[int], bool], Act]] = []
        self._answers: list[tuple[bytes, Callable[[int], bool], Act]] = []
        self.counts: dict[bytes, int] = {}
        self._replies: dict[bytes, list[tuple[bytes, int]]] = {}
        self._all: Act | None = None
        proxy.to_server, proxy.to_client = self._to_server, self._to_client

    def on_publish(self, prefix: bytes, n: int | None, act: Act) -> None:
        """Act on the n-th publish below ``prefix`` (``None``: on each)."""
        self._sends.append((prefix, lambda number: n is None or number == n, act))

    def on_ack(self, prefix: bytes, n: int | None, act: Act) -> None:
        """Act on the answer to the n-th publish below ``prefix`` (``None``: to each)."""
        self._answers.append((prefix, lambda number: n is None or number == n, act))

    def on_all(self, act: Act) -> None:
        """Act on every message of either direction that nothing else acts on."""
        self._all = act

    def _act(self, act: Act, event: Any, raw: bytes) -> Any:
        self.hits += 1
        self.hit.set()
        return act(event, raw)

    def _to_server(self, event: Any, raw: bytes) -> Any:
        if not isinstance(event, Pub):
            return None
        if b".STREAM.MSG.DELETE." in event.subject:
            self.deleted.append(json.loads(bytes(event.payload))["seq"])
        if b".STREAM.PURGE." in event.subject:
            self.purged.append(json.loads(bytes(event.payload) or b"{}").get("filter"))
        for prefix in (self.chunks, self.metas):
            if not event.subject.startswith(prefix):
                continue
            number = self.counts.get(prefix, 0)
            self.counts[prefix] = number + 1
            if event.reply is not None:
                self._replies[bytes(event.reply)] = [(prefix, number)]
            for wanted, chosen, act in self._sends:
                if wanted == prefix and chosen(number):
                    return self._act(act, event, raw)
        return None if self._all is None else self._all(event, raw)

    def _to_client(self, event: Any, raw: bytes) -> Any:
        if not isinstance(event, Msg):
            return None
        for prefix, number in self._replies.pop(bytes(event.subject), ()):
            for wanted, chosen, act in self._answers:
                if wanted == prefix and chosen(number):
                    return self._act(act, event, raw)
        return None if self._all is None else self._all(event, raw)
