"""The blocking API on real servers: what a script does, from the connection to its end."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import objstore.sync
from natsproto.errors import NoRespondersError, RequestTimeoutError
from natsproto.jetstream.api.errors import ConsumerNotFoundError, MessageNotFoundError
from natsproto.server import LocalServer
from objstore.sync import Client, ObjectStore

LARGE = bytes(range(256)) * 12_000


@pytest.fixture
def nc(server: LocalServer) -> Iterator[Client]:
    with objstore.sync.connect(server.url) as nc:
        yield nc


@pytest.fixture
def store(nc: Client) -> Iterator[ObjectStore]:
    store = nc.object_store(f"sync-{uuid.uuid4().hex[:12]}", create=True)
    yield store
    assert store.js.consumer_names(f"OBJ_{store.bucket}") == []
    store.js.delete_object_store(store.bucket)


def test_objects(store: ObjectStore) -> None:
    info = store.put("large", LARGE)
    assert store.get("large") == LARGE
    assert b"".join(store.open_reader("large")) == LARGE
    assert store.get_range("large", 5, 700_000) == LARGE[5:700_000]
    with store.open_writer("written") as writer:
        for piece in store.open_reader("large"):
            writer.write(piece)
    assert store.get_info("written").digest == info.digest
    assert store.put("generated", (b"%d\n" % number for number in range(50_000))).size > 250_000
    assert [each.name for each in store.iter()] == ["large", "written", "generated"]
    assert store.names() == ["generated", "large", "written"]
    assert store.delete("written")
    assert store.verify(deep=True).ok


def test_watched(store: ObjectStore) -> None:
    store.put("a", b"1")
    with store.watch() as watcher:
        watcher.wait_caught_up(20)
        assert [info.name for info in watcher.changes(timeout=0.1)] == ["a"]
        store.put("b", b"2")
        assert watcher.next(timeout=20).name == "b"


def test_many_threads(store: ObjectStore) -> None:
    """Each has its own objects; all share one connection."""

    def work(worker: int) -> bool:
        name = f"of {worker}"
        for number in range(5):
            content = b"%d " % number * 30_000
            store.put(name, content)
            if store.get(name) != content:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [True] * 8
    assert store.count() == 8


def test_messages(nc: Client) -> None:
    subject = f"sync.{uuid.uuid4().hex}"
    with nc.subscribe(subject) as questions:

        def serve() -> None:
            for msg in questions:
                msg.respond(msg.data.upper(), headers={"Length": str(len(msg.data))})

        service = threading.Thread(target=serve)
        service.start()
        answer = nc.request(subject, b"hello", timeout=20)
        assert (answer.data, (answer.headers or {})["length"]) == (b"HELLO", "5")
    service.join(20)
    with pytest.raises(NoRespondersError):
        nc.request(subject, b"hello")
    numbers = nc.subscribe(subject, max_msgs=1000)
    for number in range(1000):
        nc.publish(subject, b"%d" % number)
    assert [int(msg.data) for msg in numbers] == list(range(1000))
    quiet = nc.subscribe(subject)
    nc.publish(subject, b"one")
    assert [msg.data for msg in quiet.messages(timeout=0.2)] == [b"one"]
    with pytest.raises(RequestTimeoutError):
        quiet.next_msg(timeout=0.01)


def test_consumers(nc: Client) -> None:
    js = nc.jetstream()
    name = f"sync{uuid.uuid4().hex[:12]}"
    js.create_stream({"name": name, "subjects": [f"{name}.>"], "allow_direct": True})
    try:
        for number in range(5):
            js.publish(f"{name}.{number}", b"%d" % number)
        assert js.direct_get(name, last_by_subject=f"{name}.3").data == b"3"
        assert js.stream_subjects(name, f"{name}.3") == {f"{name}.3": 1}
        assert js.request(f"STREAM.INFO.{name}", timeout=20)["type"]
        assert js.account_info()["type"]
        made = js.create_consumer(name, {"ack_policy": "none", "durable_name": "made"}, timeout=20)
        assert js.consumer_info(name, "made").config == made.config
        js.delete_consumer(name, "made")
        consumer = js.pull_consumer(name, config={"ack_policy": "explicit", "durable_name": "worker"})
        (first,) = consumer.fetch(1, timeout=20)
        assert (first.subject, first.data, first.seq, first.headers) == (f"{name}.0", b"0", 1, None)
        first.in_progress()
        first.nak()
        found = []
        for msg in consumer.messages(batch=2, timeout=1):
            found.append(msg.data)
            msg.ack() if len(found) % 2 else msg.ack_sync(20)
            if len(found) == 5:
                break
        assert sorted(found) == [b"0", b"1", b"2", b"3", b"4"]
        assert consumer.fetch(1, timeout=0.1) == []
        js.publish(f"{name}.5", b"5")
        (last,) = consumer.fetch(1, timeout=20)
        last.term()
        assert consumer.fetch(1, no_wait=True) == []
        assert js.pull_consumer(name, "worker").name == js.consumer_names(name)[0] == "worker"
        consumer.delete()
        assert "JetStreamMsg" in repr(first)
    finally:
        js.delete_stream(name)


def test_push_consumers(nc: Client) -> None:
    js = nc.jetstream()
    name = f"sync{uuid.uuid4().hex[:12]}"
    js.create_stream({"name": name, "subjects": [f"{name}.>"]})
    try:
        for number in range(5):
            js.publish(f"{name}.{number}", b"%d" % number)
        config = {"ack_policy": "explicit", "idle_heartbeat": 1_000_000_000, "flow_control": True}
        with js.push_consumer(name, config=config) as consumer:
            found = []
            for msg in consumer.messages(timeout=0.3):
                found.append(msg.data)
                msg.ack_sync(20)
            assert found == [b"0", b"1", b"2", b"3", b"4"]
        assert js.consumer_names(name) == []
        durable = js.push_consumer(name, config={"durable_name": "d", "ack_policy": "explicit"})
        assert durable.next_msg(20).data == b"0"
        durable.delete()
        with pytest.raises(ConsumerNotFoundError):
            js.push_consumer(name, "d")
    finally:
        js.delete_stream(name)


def test_batches(new_server: LocalServer) -> None:
    """Of direct get, which nats-server 2.11 has."""
    with objstore.sync.connect(new_server.url) as nc:
        js = nc.jetstream()
        name = f"sync{uuid.uuid4().hex[:12]}"
        js.create_stream({"name": name, "subjects": [f"{name}.>"], "allow_direct": True})
        for number in range(5):
            js.publish(f"{name}.{number}", b"%d" % number)
        assert [msg.data for msg in js.get_batch(name, batch=3)] == [b"0", b"1", b"2"]
        assert [msg.data for msg in js.get_last_messages(name, [f"{name}.1", f"{name}.4"])] == [b"1", b"4"]
        with pytest.raises(MessageNotFoundError):
            next(js.get_batch(name, seq=100))
        js.delete_stream(name)


def test_a_limit_for_a_block(store: ObjectStore) -> None:
    """What takes longer is cancelled and leaves nothing behind; the end of a block is not cut short."""

    def endless() -> Iterator[bytes]:
        while True:
            yield LARGE

    with pytest.raises(TimeoutError), objstore.sync.timeout(0.2):
        store.put("a", endless())
    assert store.names() == []
    assert store.verify().ok
    with pytest.raises(TimeoutError), objstore.sync.timeout(0.2), store.open_writer("a") as writer:
        while True:
            writer.write(LARGE)
    assert store.status().size == 0
