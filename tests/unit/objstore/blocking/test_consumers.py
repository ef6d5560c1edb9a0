"""Pull and push consumers, and their messages, without ``await``."""

from __future__ import annotations

import gc
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from natsproto.errors import ConnectionClosedError, RequestTimeoutError
from objstore.sync import Client, JetStreamContext, JetStreamMsg
from support.blocking import just_made
from support.memory_server import MemoryServer

CONFIG = {"filter_subject": "s.>", "deliver_policy": "all", "ack_policy": "explicit"}
PINNED = {"priority_groups": ["g"], "priority_policy": "pinned_client"}


@pytest.fixture
def js(nc: Client) -> JetStreamContext:
    js = nc.jetstream()
    js.create_stream({"name": "S", "subjects": ["s.>"]})
    for number in range(300):
        js.publish("s.a", b"%d" % number)
    return js


@pytest.fixture
def server(connected: tuple[Client, MemoryServer]) -> MemoryServer:
    return connected[1]


def words(server: MemoryServer) -> list[bytes]:
    return [bytes(pub.payload) for pub in server.pubs if pub.subject.startswith(b"$JS.ACK.")]


def test_pulled(js: JetStreamContext, server: MemoryServer) -> None:
    consumer = js.pull_consumer("S", config={**CONFIG, **PINNED, "durable_name": "c"})
    found = consumer.fetch(2, timeout=2, max_bytes=100, idle_heartbeat=1, group="g")
    assert [msg.data for msg in found] == [b"0", b"1"]
    assert server.asked[-1] == (
        "CONSUMER.MSG.NEXT",
        {"batch": 2, "max_bytes": 100, "expires": 2 * 10**9, "idle_heartbeat": 10**9, "group": "g"},
    )
    assert (consumer.name, consumer.info.name, consumer.pin_id, consumer.last_end) == ("c", "c", None, None)
    messages = consumer.messages(batch=5, timeout=20, idle_heartbeat=2, group="g")
    assert [next(messages).data for _ in range(7)] == [b"%d" % number for number in range(2, 9)]
    consumer.delete()


def test_the_words_of_a_message(js: JetStreamContext, server: MemoryServer) -> None:
    msg: JetStreamMsg
    (msg,) = js.pull_consumer("S", config={**CONFIG, "durable_name": "c"}).fetch(1)
    assert (msg.subject, msg.data, msg.seq, msg.headers, msg.metadata.consumer) == ("s.a", b"0", 1, None, "c")
    server.session.info["api_lvl"] = 1
    msg.ack()
    msg.nak(1)
    msg.in_progress()
    msg.term()
    msg.term("bad")
    assert words(server) == [b"+ACK", b'-NAK {"delay":1000000000}', b"+WPI", b"+TERM", b"+TERM bad"]
    assert "seq=1" in repr(msg)


def test_pushed(js: JetStreamContext, server: MemoryServer) -> None:
    consumer = js.push_consumer("S", config={**CONFIG, "durable_name": "c"}, pending_msgs_limit=1000)
    assert (consumer.stream, consumer.name, consumer.info.name, consumer.dropped) == ("S", "c", "c", 0)
    assert consumer.next_msg(20).data == b"0"
    assert next(consumer).data == b"1"
    assert consumer.pending_msgs == 298
    assert consumer.pending_bytes > 0
    found = [msg.data for msg in consumer.messages(timeout=0.01)]
    assert found == [b"%d" % number for number in range(2, 300)]
    with pytest.raises(RequestTimeoutError):
        consumer.next_msg(0.01)
    assert "PushConsumer S/c" in repr(consumer)
    consumer.drain(5)
    assert list(consumer) == []
    with pytest.raises(ConnectionClosedError):
        consumer.next_msg()
    consumer.delete()
    assert server.streams["S"].consumers == {}


def test_the_end_of_a_push_consumer(js: JetStreamContext, server: MemoryServer) -> None:
    with js.push_consumer("S", config=CONFIG) as consumer:
        (made,) = server.streams["S"].consumers.values()
        subject = made.config["deliver_subject"].encode()
        assert server.subscribed(subject)
        ended = threading.Thread(target=lambda: [msg.ack() for msg in consumer])
        ended.start()
    ended.join(20)
    assert not ended.is_alive()
    assert not server.subscribed(subject)
    assert server.streams["S"].consumers == {}  # nobody else knows its name
    dropped = js.push_consumer("S", config={**CONFIG, "durable_name": "d"})
    del dropped
    again = js.push_consumer("S", "d")
    again.unsubscribe()


def test_interrupted_just_when_it_was_made(
    js: JetStreamContext, server: MemoryServer, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has got the push consumer: it is dropped, and unsubscribed."""
    bind = js._js.push_consumer

    async def interrupted(*args: Any, **kwargs: Any) -> object:
        await just_made()
        return await bind(*args, **kwargs)

    monkeypatch.setattr(js._js, "push_consumer", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        js.push_consumer("S", config={**CONFIG, "deliver_subject": "to.me", "durable_name": "d"})
    del caught  # its traceback refers to what the call has returned
    gc.collect()
    nc.flush()
    assert "d" in server.streams["S"].consumers
    assert not server.subscribed(b"to.me")


def test_pauses_and_pins(js: JetStreamContext, server: MemoryServer) -> None:
    def hook(verb: str, body: dict[str, Any]) -> dict[str, Any] | None:
        if verb == "CONSUMER.PAUSE":
            until = body.get("pause_until", "0001-01-01T00:00:00Z")
            return {"paused": "pause_until" in body, "pause_until": until, "pause_remaining": 5}
        return {} if verb == "CONSUMER.UNPIN" else None

    server.hook = hook
    assert js.pause_consumer("S", "c", datetime(2030, 1, 1, tzinfo=UTC)).paused
    assert not js.resume_consumer("S", "c").paused
    js.unpin_consumer("S", "c", "g")
    assert server.asked[-1] == ("CONSUMER.UNPIN", {"group": "g"})
