"""A JetStream server in this process, behind a real client: streams, direct get, batches, push consumers.

It keeps the rules that the object store builds on (roll-up, compare-and-set, de-duplication, atomic batches,
sealed and full streams), answers in the next turn of the loop, and notes what it was asked. A hook may answer
in its place, or say nothing; rights may be taken away. What a real server does beyond that, the integration
tests know.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from natsproto.headers import parse_headers
from natsproto.wire import Pub
from objstore import ObjectStore
from support.fake_session import FakeServer, FakeSession

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
SILENCE = object()
"""What a hook returns when no answer is to come."""

EOB = b"NATS/1.0 204 EOB\r\nNats-Num-Pending: %d\r\nNats-Last-Sequence: %d\r\n\r\n"
ROLL_UP = b"NATS/1.0\r\nNats-Rollup: sub\r\n\r\n"
NOT_FOUND = b"NATS/1.0 404 Message Not Found\r\n\r\n"
OVERHEAD = 30
DEFAULTS = {"retention": "limits", "max_msgs": -1, "max_bytes": -1, "max_age": 0, "num_replicas": 1}

Answer = dict[str, Any]


def error(code: int, err_code: int, description: str) -> Answer:
    return {"error": {"code": code, "err_code": err_code, "description": description}}


NO_MESSAGE = error(404, 10037, "no message found")
NO_STREAM = error(404, 10059, "stream not found")


def matches(pattern: str, subject: str) -> bool:
    wanted, given = pattern.split("."), subject.split(".")
    for at, token in enumerate(wanted):
        if token == ">":
            return len(given) > at
        if at >= len(given) or token not in ("*", given[at]):
            return False
    return len(wanted) == len(given)


@dataclass
class Stored:
    seq: int
    subject: str
    header: bytes
    payload: bytes
    time: datetime

    @property
    def size(self) -> int:
        return len(self.subject) + len(self.header) + len(self.payload) + OVERHEAD

    @property
    def stamp(self) -> str:
        return self.time.isoformat().replace("+00:00", "Z")


@dataclass
class Consumer:
    name: str
    config: dict[str, Any]
    seq: int = 0
    waiting: list[Stored] = field(default_factory=list)  # of a pull consumer: not delivered yet


class MemoryStream:
    """One stream; ``created`` tells it from a later one of its name."""

    def __init__(self, server: MemoryServer, config: dict[str, Any]) -> None:
        self.server = server
        self.config = config
        self.created = server.now()
        self.messages: dict[int, Stored] = {}
        self.seq = 0
        self.ids: dict[str, int] = {}
        self.batches: dict[str, list[tuple[str, bytes, bytes]]] = {}
        self.sources: list[Answer] | None = None  # what is told of them
        self.consumers: dict[str, Consumer] = {}

    @property
    def name(self) -> str:
        return str(self.config["name"])

    def of(self, pattern: str) -> list[Stored]:
        return [each for each in self.messages.values() if matches(pattern, each.subject)]

    def last_of(self, pattern: str) -> Stored | None:
        return max(self.of(pattern), key=lambda each: each.seq, default=None)

    @property
    def size(self) -> int:
        return sum(each.size for each in self.messages.values())

    # -- publishing -------------------------------------------------------------------------------

    def publish(self, subject: str, header: bytes, payload: bytes) -> Answer | bytes:
        fields = dict(parse_headers(header).headers.items()) if header else {}
        batch = fields.get("Nats-Batch-Id")
        if batch is None:
            return self.store([(subject, header, payload)])
        if not self.config.get("allow_atomic"):
            return error(400, 10174, "atomic publish is disabled")
        staged = self.batches.setdefault(batch, [])
        staged.append((subject, header, payload))
        if "Nats-Batch-Commit" in fields:
            answer = self.store(self.batches.pop(batch))
            return answer if "error" in answer else {**answer, "batch": batch, "count": len(staged)}
        return b""

    def store(self, messages: list[tuple[str, bytes, bytes]]) -> Answer:
        fields = [dict(parse_headers(header).headers.items()) if header else {} for _, header, _ in messages]
        if self.config.get("sealed"):
            return error(400, 10109, "invalid operation on sealed stream")
        for each in fields:
            if (known := self.ids.get(each.get("Nats-Msg-Id", ""))) is not None:
                return {"stream": self.name, "seq": known, "duplicate": True}
            if int(each.get("Nats-Expected-Last-Sequence", self.seq)) != self.seq:
                return error(400, 10071, f"wrong last sequence: {self.seq}")
        for (subject, _, _), each in zip(messages, fields, strict=True):
            expected = each.get("Nats-Expected-Last-Subject-Sequence")
            last = self.last_of(subject)
            if expected is not None and int(expected) != (0 if last is None else last.seq):
                return error(400, 10071, f"wrong last sequence: {0 if last is None else last.seq}")
        most = self.config.get("max_bytes") or -1
        new = sum(
            len(subject) + len(header) + len(payload) + OVERHEAD for subject, header, payload in messages
        )
        if most > 0 and self.size + new > most:
            return error(503, 10077, "maximum bytes exceeded")
        for (subject, header, payload), each in zip(messages, fields, strict=True):
            self.seq += 1
            if each.get("Nats-Rollup") == "sub":
                self.remove(old.seq for old in self.of(subject))
            stored = Stored(self.seq, subject, header, payload, self.server.now())
            self.messages[self.seq] = stored
            if "Nats-Msg-Id" in each:
                self.ids[each["Nats-Msg-Id"]] = self.seq
            for consumer in self.consumers.values():
                if matches(consumer.config["filter_subject"], subject):
                    self.due(consumer, [stored])
        return {"stream": self.name, "seq": self.seq}

    def remove(self, sequences: Iterable[int]) -> int:
        return sum(self.messages.pop(seq, None) is not None for seq in list(sequences))

    # -- reading ----------------------------------------------------------------------------------

    def find(self, body: dict[str, Any]) -> list[Stored]:
        """What a get asks for: one message, or for a batch all that follow it."""
        if "last_by_subj" in body:
            last = self.last_of(body["last_by_subj"])
            return [] if last is None else [last]
        if "multi_last" in body:
            last_ones: dict[str, Stored] = {}
            for pattern in body["multi_last"]:
                last_ones.update({each.subject: each for each in self.of(pattern)})
            return sorted(last_ones.values(), key=lambda each: each.seq)
        if "next_by_subj" in body:
            return [each for each in self.of(body["next_by_subj"]) if each.seq >= body.get("seq", 1)]
        one = self.messages.get(body["seq"])
        return [] if one is None else [one]

    def direct(self, pub: Pub, body: dict[str, Any]) -> None:
        found = self.find(body)
        batch, most = body.get("batch"), body.get("max_bytes")
        if not found:
            self.server.answer(pub, b"", NOT_FOUND)
            return
        if batch is None or self.server.older_than(2, 11):
            self.server.answer(pub, found[0].payload, self.block(found[0]))
            return
        sent: list[Stored] = []
        size = 0
        for each in found[:batch]:
            sent.append(each)
            size += each.size
            if most and size > most:
                break
        before = 0
        left = len(found) + self.server.older_than(2, 12)  # which counts the end of the batch as well
        for each in sent:
            left -= 1
            lines = b"Nats-Num-Pending: %d\r\nNats-Last-Sequence: %d\r\n" % (left, before)
            self.server.answer(pub, each.payload, self.block(each, lines))
            before = each.seq
        self.server.answer(pub, b"", EOB % (len(found) - len(sent), before))

    def block(self, each: Stored, lines: bytes = b"") -> bytes:
        """The header of a direct get's answer: the server's lines come after those of the message."""
        own = b"Nats-Stream: %b\r\nNats-Subject: %b\r\nNats-Sequence: %d\r\nNats-Time-Stamp: %b\r\n" % (
            self.name.encode(),
            each.subject.encode(),
            each.seq,
            each.stamp.encode(),
        )
        return (each.header[:-2] or b"NATS/1.0\r\n") + own + lines + b"\r\n"

    # -- consumers --------------------------------------------------------------------------------

    def consume(self, name: str, config: dict[str, Any]) -> Answer:
        consumer = self.consumers[name] = Consumer(name, config)
        found = self.of(config.get("filter_subject", ">"))
        match config["deliver_policy"]:
            case "by_start_sequence":
                found = [each for each in found if each.seq >= config["opt_start_seq"]]
            case "last_per_subject":
                found = [each for each in found if self.last_of(each.subject) is each]
            case "last":
                found = found[-1:]
            case "new":
                found = []
        self.server.loop.call_soon(self.due, consumer, found)
        self.beat(consumer)
        return {
            "stream_name": self.name,
            "name": name,
            "config": config,
            "created": self.created.isoformat(),
            "num_pending": len(found),
            "delivered": {"consumer_seq": 0, "stream_seq": (found[0].seq - 1) if found else self.seq},
        }

    def due(self, consumer: Consumer, found: list[Stored]) -> None:
        if self.consumers.get(consumer.name) is not consumer:
            return
        if "deliver_subject" not in consumer.config:
            consumer.waiting += found
            return
        if self.server.importing:
            return
        inbox = consumer.config["deliver_subject"].encode()
        for left, each in zip(range(len(found) - 1, -1, -1), found, strict=True):
            self.deliver(consumer, each, left, inbox)

    def deliver(self, consumer: Consumer, each: Stored, left: int, inbox: bytes) -> None:
        if consumer.seq and consumer.config.get("max_ack_pending") == 1:
            return  # nobody acknowledges here
        consumer.seq += 1
        header = each.header or None
        payload = each.payload
        if consumer.config.get("headers_only"):
            header = (each.header[:-2] or b"NATS/1.0\r\n") + b"Nats-Msg-Size: %d\r\n\r\n" % len(payload)
            payload = b""
        token = b"$JS.ACK.%b.%b.1.%d.%d.%d.%d" % (
            self.name.encode(),
            consumer.name.encode(),
            each.seq,
            consumer.seq,
            int(each.time.timestamp()) * 1_000_000_000,
            left,
        )
        self.server.send(inbox, payload, subject=each.subject.encode(), header=header, reply=token)

    def fetch(self, consumer: Consumer, inbox: bytes, body: dict[str, Any]) -> None:
        """Answer a pull request at once; what is not there is told, without waiting for it."""
        count = min(body["batch"], len(consumer.waiting))
        for _ in range(count):
            each = consumer.waiting.pop(0)
            self.deliver(consumer, each, len(consumer.waiting), inbox)
        if count < body["batch"]:
            self.server.send(inbox, header=b"NATS/1.0 404 No Messages\r\n\r\n")

    def beat(self, consumer: Consumer) -> None:
        """Idle heartbeats, until the consumer is deleted."""
        interval = consumer.config.get("idle_heartbeat", 0) / 1e9

        def beat() -> None:
            if self.consumers.get(consumer.name) is consumer:
                lines = b"Nats-Last-Consumer: %d\r\nNats-Last-Stream: %d\r\n" % (consumer.seq, self.seq)
                header = b"NATS/1.0 100 Idle Heartbeat\r\n" + lines + b"\r\n"
                if not self.server.importing:
                    self.server.send(consumer.config["deliver_subject"].encode(), header=header)
                self.server.loop.call_later(interval, beat)

        if interval:
            self.server.loop.call_later(interval, beat)

    def info(self, body: dict[str, Any]) -> Answer:
        subjects: dict[str, int] = {}
        for each in self.of(body["subjects_filter"]) if "subjects_filter" in body else ():
            subjects[each.subject] = subjects.get(each.subject, 0) + 1
        page = dict(sorted(subjects.items())[body.get("offset", 0) :])
        return {
            "config": self.config,
            "created": self.created.isoformat().replace("+00:00", "Z"),
            "state": {
                "messages": len(self.messages),
                "bytes": self.size,
                "first_seq": min(self.messages, default=self.seq + 1),
                "last_seq": self.seq,
                "num_subjects": len({each.subject for each in self.messages.values()}),
                "subjects": page,
            },
            "total": len(subjects),
            "offset": body.get("offset", 0),
            "limit": 100_000,
            **({} if self.sources is None else {"sources": self.sources}),
            "ts": self.server.now().isoformat().replace("+00:00", "Z"),
        }


class MemoryServer(FakeServer):
    """The server and its client.

    Attributes:
        asked: the API requests, as verb and body, in order.
        hook: sees each API request and may answer in the server's place; ``None`` leaves it to the server.
        on_publish: likewise for messages to a stream: subject, header, payload.
        refused: API verbs the user has no right to.
        ahead: by how much the server's clock is put forward.
        importing: as in an account that imports the API: only the first message of an answer comes.
    """

    def __init__(self, version: str = "2.12.0") -> None:
        self.version = version
        self.loop = asyncio.get_running_loop()
        self.streams: dict[str, MemoryStream] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.hook: Callable[[str, dict[str, Any]], Any] | None = None
        self.on_publish: Callable[[str, bytes, bytes], Any] | None = None
        self.refused: set[str] = set()
        self.ahead = timedelta(0)
        self.importing = False
        self._answered: set[bytes] = set()
        super().__init__()
        self.js = self.client.jetstream(timeout=2.0)

    def connect(self) -> FakeSession:
        session = super().connect()
        session.info["version"] = self.version
        session.on_pub = lambda pub: self.on_pub(Pub(pub.subject, pub.reply, pub.header, bytes(pub.payload)))
        return session

    def older_than(self, *wanted: int) -> bool:
        return tuple(map(int, self.version.split("."))) < wanted

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def bucket(self, name: str = "b", **config: Any) -> ObjectStore:
        """Make a bucket. Its revisions and times are this server's."""
        return await self.js.create_object_store(bucket=name, **config)

    def stream(self, bucket: str = "b") -> MemoryStream:
        return self.streams[f"OBJ_{bucket}"]

    def chunks(self, bucket: str = "b") -> dict[str, int]:
        """How many chunks of each nuid are stored."""
        counts: dict[str, int] = {}
        for each in self.stream(bucket).of(f"$O.{bucket}.C.*"):
            nuid = each.subject.rpartition(".")[2]
            counts[nuid] = counts.get(nuid, 0) + 1
        return counts

    def verbs(self) -> list[str]:
        """The verbs that were asked for since the last call."""
        verbs = [verb for verb, _ in self.asked]
        self.asked.clear()
        return verbs

    def put_raw(self, subject: str, payload: bytes | Answer, header: bytes = b"", bucket: str = "b") -> int:
        """Store what no honest writer would, or not so; returns its sequence."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        answer = self.stream(bucket).store([(subject, header, data)])
        return int(answer["seq"])

    def end_batch_early(self) -> None:
        """Have another client end the next batch: it sees its id with the first message, which is stored."""

        def end(subject: str, header: bytes, payload: bytes) -> Answer | None:
            if b"Nats-Batch-Commit" not in header:
                return None
            self.on_publish = None
            for messages in self.stream().batches.values():
                self.stream().store(messages[:1])  # with somebody's message behind it
            self.stream().batches.clear()
            return error(400, 10176, "batch is incomplete")

        self.on_publish = end

    # -- what comes from the client ---------------------------------------------------------------

    def answer(self, pub: Pub, payload: bytes | Answer, header: bytes | None = None) -> None:
        session = self.session

        def go() -> None:
            if self.connection.session is not session or pub.reply is None:
                return
            if not self.importing or pub.reply not in self._answered:
                self._answered.add(pub.reply)
                self.reply(pub, payload, header)

        self.loop.call_soon(go)

    def on_pub(self, pub: Pub) -> None:
        subject = pub.subject.decode()
        if subject.startswith("$JS.API."):
            self.api(pub, subject.removeprefix("$JS.API."))
        elif not subject.startswith("$JS.FC."):
            self.message(pub, subject)

    def message(self, pub: Pub, subject: str) -> None:
        header, payload = bytes(pub.header or b""), bytes(pub.payload)
        answer = None if self.on_publish is None else self.on_publish(subject, header, payload)
        if answer is SILENCE:
            return
        stream = self.listener(subject)
        if answer is None:
            if stream is None:
                self.answer(pub, b"", b"NATS/1.0 503\r\n\r\n")
                return
            answer = stream.publish(subject, header, payload)
        if stream is not None and isinstance(answer, dict) and "error" in answer:
            answer = {"stream": stream.name, "seq": 0, **answer}  # as servers refuse messages
        if pub.reply is not None:
            self.answer(pub, answer)

    def listener(self, subject: str) -> MemoryStream | None:
        for stream in self.streams.values():
            if any(matches(pattern, subject) for pattern in stream.config.get("subjects", ())):
                return stream
        return None

    def api(self, pub: Pub, rest: str) -> None:
        tokens = rest.split(".")
        size = 3 if tokens[1:2] == ["MSG"] else 2
        verb, names = ".".join(tokens[:size]), tokens[size:]
        payload = bytes(pub.payload)
        body: dict[str, Any] = json.loads(payload) if payload else {}
        self.asked.append((verb, body))
        if verb in self.refused:
            text = f'Permissions Violation for Publish to "$JS.API.{rest}"'
            self.loop.call_soon(self.connection.server_error, self.session, text)
            return
        answer = None if self.hook is None else self.hook(verb, body)
        if answer is SILENCE:
            return
        if answer is None:
            answer = self.handle(pub, verb, names, body)
        if answer is not None:
            self.answer(pub, answer)

    def handle(self, pub: Pub, verb: str, names: list[str], body: dict[str, Any]) -> Answer | None:
        if verb in ("STREAM.NAMES", "STREAM.LIST"):
            return self.listing(verb, body)
        if verb == "INFO":
            unlimited = {"max_memory": -1, "max_storage": -1, "max_streams": -1, "max_consumers": -1}
            streams = len(self.streams)
            return {"memory": 0, "storage": 0, "streams": streams, "consumers": 0, "limits": unlimited}
        name = names[0]
        if verb == "STREAM.CREATE":
            return self.create(body)
        stream = self.streams.get(name)
        if stream is None:
            if verb.startswith("DIRECT."):
                self.answer(pub, b"", b"NATS/1.0 503\r\n\r\n")
                return None
            return NO_STREAM
        match verb:
            case "STREAM.INFO":
                return stream.info(body)
            case "STREAM.UPDATE":
                stream.config = {**DEFAULTS, **body}
                return stream.info({})
            case "STREAM.DELETE":
                del self.streams[name]
                return {"success": True}
            case "STREAM.PURGE":
                below = body.get("seq", stream.seq + 1)
                gone = [each.seq for each in stream.of(body.get("filter", ">")) if each.seq < below]
                return {"success": True, "purged": stream.remove(gone)}
            case "STREAM.MSG.DELETE":
                return {"success": True} if stream.remove([body["seq"]]) else NO_MESSAGE
            case "STREAM.MSG.GET":
                found = stream.find(body)
                return self.leader_message(found[0]) if found else NO_MESSAGE
            case "DIRECT.GET":
                if not stream.config.get("allow_direct"):
                    self.answer(pub, b"", b"NATS/1.0 503\r\n\r\n")
                else:
                    stream.direct(pub, body or {"last_by_subj": ".".join(names[1:])})
                return None
            case "CONSUMER.CREATE":
                return stream.consume(names[1], body["config"])
            case "CONSUMER.MSG.NEXT":
                if names[1] not in stream.consumers:
                    self.answer(pub, b"", b"NATS/1.0 503\r\n\r\n")
                else:
                    consumer = stream.consumers[names[1]]
                    self.loop.call_soon(stream.fetch, consumer, pub.reply, body)
                return None
            case "CONSUMER.INFO":
                if names[1] not in stream.consumers:
                    return error(404, 10014, "consumer not found")
                one = stream.consumers[names[1]]
                return {"stream_name": name, "name": one.name, "config": one.config}
            case "CONSUMER.DELETE":
                gone_one = stream.consumers.pop(names[1], None)
                return {"success": True} if gone_one else error(404, 10014, "consumer not found")
        raise AssertionError(f"the server in memory does not know {verb}")

    def create(self, config: dict[str, Any]) -> Answer:
        known = self.streams.get(config["name"])
        if known is not None:
            if {**known.config, **config} != known.config:
                return error(400, 10058, "stream name already in use with a different configuration")
            return known.info({})
        self.streams[config["name"]] = MemoryStream(self, {**DEFAULTS, **config})
        return {**self.streams[config["name"]].info({}), "did_create": True}

    def listing(self, verb: str, body: dict[str, Any]) -> Answer:
        wanted = body.get("subject", ">")
        found = [
            each
            for each in self.streams.values()
            if wanted == ">" or any(matches(wanted, subject) for subject in each.config.get("subjects", ()))
        ]
        rows: list[Any] = [each.name if verb == "STREAM.NAMES" else each.info({}) for each in found]
        at = body.get("offset", 0)
        return {"streams": rows[at:], "total": len(rows), "offset": at, "limit": 1024}

    def leader_message(self, each: Stored) -> Answer:
        message: Answer = {"subject": each.subject, "seq": each.seq, "time": each.stamp}
        if each.header:
            message["hdrs"] = base64.b64encode(each.header).decode()
        if each.payload:
            message["data"] = base64.b64encode(each.payload).decode()
        return {"message": message}
