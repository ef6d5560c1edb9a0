"""Real clients and real verbs on a made-up network and stream, in virtual time: one seed, one history.

Waiting costs nothing, so budgets of 20 s are used up in a blink. The stream has roll-up, compare-and-set,
de-duplication, proposals that are applied later or dropped by a new leader, batches, and it may forget
message ids. The network delays, doubles metas, cuts connections with frames still on their way (in relays, or
in the server that was left), and loses answers. After every change of the stream all live metas are looked
at: their chunks must be there, in order, with the digest they name.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import selectors
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from natsproto.headers import parse_headers
from natsproto.jetstream.api.models import StreamInfo
from natsproto.wire import Pub
from objstore import ObjectStore
from objstore.bucket.bucket import Bucket
from support.api_documents import api_answer
from support.fake_session import FakeServer, FakeSession

STREAM = "OBJ_b"
CREATED = "2026-01-01T00:00:00Z"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Stuck(Exception):
    """Nothing is ready, and nothing ever will be: somebody waits without a bound."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        loop = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> Any:
                ready = super().select(0)
                if not ready:
                    if timeout is None:
                        raise Stuck
                    loop.now += max(timeout, 0.0)
                return ready

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on such a loop: no machine is too busy for its deadlines."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()


async def passing(seconds: float) -> None:
    """Let virtual time pass: it costs none of the real one."""
    await asyncio.sleep(seconds)


@dataclass
class Stored:
    seq: int
    subject: str
    header: bytes
    fields: dict[str, str]
    payload: bytes
    time: float


@dataclass
class Proposal:
    """Messages that are applied together, and where to tell of it."""

    messages: list[tuple[str, bytes, bytes]]
    answer: Callable[[dict[str, Any]], None]
    ids: list[str] = field(default_factory=list)


def fields_of(header: bytes) -> dict[str, str]:
    return dict(parse_headers(header).headers.items()) if header else {}


class Stream:
    """What a stream does with what arrives; ``wrong`` collects what must never be."""

    def __init__(self, loop: VirtualLoop, chance: Random, *, replicated: bool, revision_first: bool) -> None:
        self.loop = loop
        self.chance = chance
        self.replicated = replicated
        self.revision_first = revision_first
        self.seq = 0
        self.messages: dict[int, Stored] = {}
        self.ids: dict[str, int] = {}
        self.proposals: list[Proposal] = []
        self.batches: dict[str, list[tuple[str, bytes, bytes]]] = {}
        self.metas: dict[int, dict[str, Any]] = {}
        self.wrong: list[str] = []
        self.full = False
        self.doubles = True
        self.leaders_return = False  # while a server of the cluster holds back messages for them
        self.copied: list[Stored] = []  # what a stream with this one among its sources has
        self.copy_answers = 0.0  # how often a peer has that one answer a request for a message, too
        self.copy_begins = 0  # messages that it had before
        self.crowded = False  # others have all batches open
        self.early = False  # conditions are checked before what was accepted earlier is stored (2.9)
        self.unseen: dict[int, int] = {}  # metas that were replaced by one that expected another: by which

    # -- publishing -------------------------------------------------------------------------------

    def publish(self, subject: str, header: bytes, payload: bytes, reply: Callable[[Any], None]) -> None:
        def answer(document: Any) -> None:
            reply({"stream": STREAM, **document} if isinstance(document, dict) else document)

        fields = fields_of(header)
        batch = fields.get("Nats-Batch-Id")
        if batch is None:
            self.propose([(subject, header, payload)], answer)
            return
        if self.crowded and batch not in self.batches:
            answer({"error": {"code": 429, "err_code": 10210, "description": "too many inflight"}})
            return
        staged = self.batches.setdefault(batch, [])
        if int(fields["Nats-Batch-Sequence"]) != len(staged) + 1:
            answer({"error": {"code": 400, "err_code": 10176, "description": "batch is incomplete"}})
            return
        staged.append((subject, header, payload))
        if "Nats-Batch-Commit" in fields:
            count = len(self.batches.pop(batch))

            def answer_end(document: Any) -> None:
                answer(document if "error" in document else {**document, "batch": batch, "count": count})

            self.propose(staged, answer_end)
        elif len(staged) == 1:
            answer(b"")

    def propose(self, messages: list[tuple[str, bytes, bytes]], answer: Callable[[Any], None]) -> None:
        fields = [fields_of(header) for _, header, _ in messages]
        ids = [each["Nats-Msg-Id"] for each in fields if "Nats-Msg-Id" in each]
        checks = [self.conflict, self.duplicate] if self.revision_first else [self.duplicate, self.conflict]
        for check in checks:
            refusal = check(messages, fields, ids)
            if refusal is not None:
                answer(refusal)
                return
        if self.full and all(subject.startswith("$O.b.M.") for subject, _, _ in messages):
            answer({"error": {"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"}})
            return
        self.proposals.append(Proposal(messages, answer, ids))
        if self.replicated:
            self.loop.call_later(self.chance.choice((0.001, 0.01, 0.5)), self.apply)
        else:
            self.apply()

    def duplicate(self, messages: Any, fields: Any, ids: list[str]) -> dict[str, Any] | None:
        if any(each in waiting.ids for waiting in self.proposals for each in ids):
            return {"error": {"code": 409, "err_code": 10158, "description": "duplicate id in process"}}
        known = next((self.ids[each] for each in ids if each in self.ids), None)
        if known is None:
            return None
        if len(messages) > 1:
            return {"error": {"code": 400, "err_code": 10201, "description": "duplicate in batch"}}
        return {"stream": STREAM, "seq": known, "duplicate": True}

    def conflict(self, messages: Any, fields: Any, ids: Any) -> dict[str, Any] | None:
        waiting = {subject for each in self.proposals for subject, _, _ in each.messages}
        for (subject, _, _), each in zip(messages, fields, strict=True):
            if int(each.get("Nats-Expected-Last-Sequence", self.seq)) != self.seq:
                return {"error": {"code": 400, "err_code": 10071, "description": "wrong last sequence"}}
            expected = each.get("Nats-Expected-Last-Subject-Sequence")
            if expected is None:
                continue
            last = self.last(subject)
            if int(expected) != (last.seq if last else 0) or (subject in waiting and not self.early):
                return {"error": {"code": 400, "err_code": 10071, "description": "wrong last sequence"}}
        return None

    def apply(self) -> None:
        if not self.proposals:
            return  # dropped
        proposal = self.proposals.pop(0)
        for (subject, header, payload), fields in (
            (message, fields_of(message[1])) for message in proposal.messages
        ):
            self.seq += 1
            if fields.get("Nats-Rollup") == "sub":
                for old in [each.seq for each in self.messages.values() if each.subject == subject]:
                    del self.messages[old]
                    if old > int(fields.get("Nats-Expected-Last-Subject-Sequence", old)):
                        self.unseen[old] = self.seq
                self.metas[self.seq] = json.loads(payload)
            self.messages[self.seq] = Stored(self.seq, subject, header, fields, payload, self.loop.time())
            copy = Stored(self.copy_begins + self.seq, subject, header, fields, payload, self.loop.time())
            self.copied.append(copy)
            if "Nats-Msg-Id" in fields:
                self.ids[fields["Nats-Msg-Id"]] = self.seq
        self.look()
        proposal.answer({"stream": STREAM, "seq": self.seq})

    def new_leader(self) -> None:
        """The proposals of the old one are dropped."""
        self.proposals.clear()
        self.batches.clear()

    # -- what is stored ---------------------------------------------------------------------------

    def of(self, subject: str) -> list[Stored]:
        if subject.endswith(">"):
            return [each for each in self.messages.values() if each.subject.startswith(subject[:-1])]
        return [each for each in self.messages.values() if each.subject == subject]

    def last(self, subject: str) -> Stored | None:
        found = self.of(subject)
        return found[-1] if found else None

    def live(self) -> Iterator[dict[str, Any]]:
        for message in self.of("$O.b.M.>"):
            meta = json.loads(message.payload)
            if not meta.get("deleted") and not (meta.get("options") or {}).get("link"):
                yield meta

    def look(self) -> None:
        for meta in self.live():
            chunks = [each.payload for each in self.of(f"$O.b.C.{meta['nuid']}") if each.payload]
            own = chunks[: meta["chunks"]] if self.leaders_return else chunks
            digest = "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(b"".join(own)).digest()).decode()
            if digest != meta["digest"] or not set(chunks) <= set(own):
                self.wrong.append(f"{self.loop.time():.3f}: {meta['name']!r} ({meta['nuid']}) is damaged")

    def behind(self) -> Iterator[str]:
        """The names with too many chunks, fences aside."""
        for meta in self.live():
            if sum(bool(each.payload) for each in self.of(f"$O.b.C.{meta['nuid']}")) > meta["chunks"]:
                yield meta["name"]

    # -- the API ----------------------------------------------------------------------------------

    def request(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        if verb == "STREAM.MSG.GET":
            return self.get(body)
        if verb == "STREAM.PURGE":
            while self.early and self.proposals:
                self.apply()  # it takes the same way
            below = body.get("seq", self.seq + 1)
            gone = [each.seq for each in self.of(body["filter"]) if each.seq < below]
            for seq in gone:
                del self.messages[seq]
            self.look()
            return {"success": True, "purged": len(gone)}
        if verb == "STREAM.MSG.DELETE":
            found = self.messages.pop(body["seq"], None)
            self.look()
            return {"success": True} if found else not_found()
        if verb.startswith("CONSUMER.CREATE."):
            config = body["config"]
            counted = {"config": config, "num_pending": len(self.due(config)), "created": CREATED}
            delivered = {"consumer_seq": 0, "stream_seq": config.get("opt_start_seq", 1) - 1}
            return {"stream_name": STREAM, "name": config["name"], "delivered": delivered, **counted}
        if verb.startswith("CONSUMER.DELETE."):
            return {"success": True}
        subjects: dict[str, int] = {}
        for each in self.of(body.get("subjects_filter", "nothing")):
            subjects[each.subject] = subjects.get(each.subject, 0) + 1
        state = {"messages": len(self.messages), "bytes": 0, "first_seq": 1, "last_seq": self.seq}
        now = BEGAN + timedelta(seconds=self.loop.time())
        return {
            "config": CONFIG,
            "created": CREATED,
            "state": {**state, "subjects": subjects},
            "total": len(subjects),
            "offset": 0,
            "limit": 100_000,
            "ts": now.isoformat().replace("+00:00", "Z"),
        }

    def due(self, config: dict[str, Any]) -> list[Stored]:
        """What a consumer delivers, or counts."""
        found = [
            each for each in self.of(config["filter_subject"]) if each.seq >= config.get("opt_start_seq", 1)
        ]
        if config["deliver_policy"] == "last_per_subject":
            found = [each for each in found if self.last(each.subject) is each]
        return found

    def get(self, body: dict[str, Any]) -> dict[str, Any]:
        found: Stored | None
        if "last_by_subj" in body:
            found = self.last(body["last_by_subj"])
        elif "next_by_subj" in body:
            after = [each for each in self.of(body["next_by_subj"]) if each.seq >= body.get("seq", 1)]
            found = after[0] if after else None
        else:
            found = self.messages.get(body["seq"])
        return told(found)

    def get_copy(self, body: dict[str, Any]) -> dict[str, Any]:
        """What the other stream answers: of that subject the newest one, an older one, or nothing."""
        subject = body.get("last_by_subj", body.get("next_by_subj"))
        if subject is None:
            return told(next((each for each in self.copied if each.seq == body["seq"]), None))
        begin = subject.removesuffix(">")
        found = [each for each in self.copied if each.subject.startswith(begin)]
        if "next_by_subj" in body and self.chance.random() < 0.5:
            found = [each for each in found if each.seq >= body.get("seq", 1)][:1]
        if not found or self.chance.random() < 0.2:
            return not_found()
        return told(self.chance.choice(found[-3:]))


def told(found: Stored | None) -> dict[str, Any]:
    """Return the leader's answer."""
    if found is None:
        return not_found()
    return {
        "message": {
            "subject": found.subject,
            "seq": found.seq,
            "hdrs": base64.b64encode(found.header).decode(),
            "data": base64.b64encode(found.payload).decode(),
            "time": (BEGAN + timedelta(seconds=found.time)).isoformat().replace("+00:00", "Z"),
        },
    }


CONFIG: dict[str, Any] = {
    "name": STREAM,
    "subjects": ["$O.b.C.>", "$O.b.M.>"],
    "num_replicas": 3,
    "retention": "limits",
    "discard": "new",
    "allow_rollup_hdrs": True,
    "duplicate_window": 120_000_000_000,
}


def not_found() -> dict[str, Any]:
    return {"error": {"code": 404, "err_code": 10037, "description": "no message found"}}


class LivelySession(FakeSession):
    """Bytes keep coming: no PING is needed to see that it lives."""

    cut_off = False
    released = 0.0  # when what was under way comes out, once it is cut off
    ended = math.inf  # when the server has closed it
    routed = False  # what was under way had reached the server, which holds it back for another one
    known = math.inf  # since when the server knows its lifeline
    order = 0
    travels: Callable[[LivelySession, Callable[[], None]], None]

    def write(self, data: bytes) -> None:
        super().write(data)
        if data.startswith(b"SUB "):
            self.travels(self, self._subscribed)

    def _subscribed(self) -> None:
        self.known = asyncio.get_running_loop().time()

    def ping(self, waiter: asyncio.Future[None] | None) -> None:
        def pong() -> None:
            if not self.cut_off:
                self.pings_answered += 1
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)

        self.pings_sent += 1
        self.travels(self, pong)

    @property
    def reads(self) -> int:  # type: ignore[override]
        self._reads = getattr(self, "_reads", 0) + 1
        return self._reads


class Link:
    """One client, and its connection to the stream: frames arrive in order, until it is cut."""

    def __init__(self, stream: Stream, chance: Random, *, atomic: bool) -> None:
        self.stream = stream
        self.chance = chance
        self.loop = stream.loop
        self.server = FakeServer()
        config = {**CONFIG, "allow_atomic": atomic}
        document = {"config": config, "state": {}, "created": CREATED}
        self.bucket = Bucket(self.server.client.jetstream(timeout=5.0), "b", StreamInfo.from_json(document))
        self.store = ObjectStore(self.bucket)
        self.dead = False
        self.allowed = True  # to publish metas
        self.sessions: list[LivelySession] = []
        self.peers = [self]  # whose processes may go on with an upload of this one
        self.home = 0  # the server of the cluster that it is connected to
        self.attach()

    def attach(self) -> None:
        session: Any = self.server.session
        session.__class__ = LivelySession
        if session.lifeline is not None:  # of the bucket that was opened just now
            session.known = self.loop.time()
        self.session: LivelySession = session
        if self.stream.replicated:
            self.session.info |= {"server_name": f"s{self.home}", "cluster": "c"}
        if self.stream.early:
            self.session.info["version"] = "2.9.10"
        self.session.travels = self.travels
        self.sessions.append(session)
        self.clear = self.loop.time()
        self.session.on_pub = lambda pub: self.sent(session, pub)

    def sent(self, session: LivelySession, pub: Pub) -> None:
        frame = Pub(pub.subject, pub.reply, pub.header, bytes(pub.payload))
        self.travels(session, lambda: self.arrives(session, frame))
        if self.stream.doubles and pub.subject.startswith(b"$O.b.M.") and self.chance.random() < 0.05:
            self.loop.call_at(self.clear, self.comes, session, lambda: self.arrives(session, frame))  # twice
        if self.stream.leaders_return and pub.subject.startswith(b"$O.b.C.") and self.chance.random() < 0.1:
            self.loop.call_soon(self.cut)  # while chunks are under way

    def deliver(self, session: LivelySession, config: dict[str, Any]) -> None:
        """What a consumer delivers, after the answer to its creation."""
        found = self.stream.due(config)
        inbox, at = config["deliver_subject"].encode(), self.loop.time() + 0.051

        def come(seq: int, each: Stored) -> None:
            if session is self.session and not session.cut_off:
                token = f"$JS.ACK.{STREAM}.{config['name']}.1.{each.seq}.{seq}.1.{len(found) - seq}"
                subject, header = each.subject.encode(), each.header or None
                self.server.send(inbox, each.payload, subject=subject, header=header, reply=token.encode())

        for seq, each in enumerate(found, 1):
            self.loop.call_at(at + seq * 1e-6, come, seq, each)

    def travels(self, session: LivelySession, happens: Callable[[], None]) -> None:
        """What is sent comes in order, after a while."""
        self.clear = max(self.clear, self.loop.time()) + self.chance.choice((0.0001, 0.0001, 0.001, 0.05))
        self.loop.call_at(self.clear, self.comes, session, happens)

    def comes(self, session: LivelySession, happens: Callable[[], None]) -> None:
        now = self.loop.time()
        if session.cut_off and now < session.released:  # a relay holds it, or the server it was sent to
            session.order += 1
            self.loop.call_at(session.released + session.order * 1e-6, self.comes, session, happens)
        elif now <= session.ended or session.routed:
            happens()
        # else: lost with the connection that was cut

    def arrives(self, session: LivelySession, pub: Pub) -> None:
        now = self.loop.time()
        subject = pub.subject.decode()

        def answer(document: Any) -> None:
            payload = document if isinstance(document, bytes) else json.dumps(document).encode()
            if isinstance(document, dict):
                payload = api_answer(pub.subject, document) or payload
            self.loop.call_later(
                self.chance.choice((0.0001, 0.001, 0.05)), self.answered, session, pub, payload
            )

        if subject.startswith("$JS.API."):
            verb = subject.removeprefix("$JS.API.").removesuffix("." + STREAM)
            body = json.loads(bytes(pub.payload) or b"{}")
            if verb == "STREAM.MSG.GET" and self.chance.random() < self.stream.copy_answers:
                self.answered(session, pub, api_answer(pub.subject, self.stream.get_copy(body)) or b"")
            answer(self.stream.request(verb, body))
            if "deliver_subject" in body.get("config", ()):
                self.deliver(session, body["config"])
        elif subject.startswith("_INBOX."):
            if not any(
                each.lifeline is not None
                and each.lifeline.subject == pub.subject
                and each.known <= now <= each.ended
                for each in self.sessions
            ):
                self.loop.call_later(0.0001, self.answered, session, pub, b"", b"NATS/1.0 503\r\n\r\n")
        elif not self.allowed and subject.startswith("$O.b.M."):
            if session is self.session and not self.dead and self.server.connection.session is session:
                self.server.refuse(subject)
        else:
            self.stream.publish(subject, bytes(pub.header or b""), bytes(pub.payload), answer)

    def answered(self, session: FakeSession, pub: Pub, payload: bytes, header: bytes | None = None) -> None:
        if session is self.session and not self.dead and self.server.connection.session is session:
            self.server.reply(pub, payload, header)

    def cut(self) -> None:
        """Lose the connection; it comes back after a moment."""
        if self.dead or self.server.connection.session is None:
            return
        self.cut_off()
        self.server.lose()
        self.loop.call_later(self.chance.choice((0.01, 0.5, 3.0)), self.back)

    def cut_off(self) -> None:
        """The server notices at once, or a relay holds what is under way, and the connection, for a while.

        Or the server notices, and holds it back: the client comes back to another one. Or to the same one, to
        which another leader has meanwhile answered, until the first one leads again.
        """
        session = self.session
        session.cut_off = True
        session.released = session.ended = self.loop.time()
        if self.stream.leaders_return and self.chance.random() < 0.5:
            session.routed = True
            session.released += self.chance.choice((1.0, 4.0, 10.0))
        elif self.stream.replicated and self.chance.random() < 0.25:
            session.routed = True
            session.released += self.chance.choice((0.05, 1.0, 4.0, 30.0))
            self.home += 1
        elif self.chance.random() < 0.5:
            session.released += self.chance.choice((0.0, 0.05, 1.0, 4.0, 30.0))
            session.ended = session.released + 1

    def back(self) -> None:
        if not self.dead and self.server.connection.session is None:
            self.server.connect()
            self.attach()

    def die(self) -> None:
        """The process is gone; what it sent may still arrive."""
        self.dead = True
        self.cut_off()
        if self.server.connection.session is not None:
            self.server.lose()
