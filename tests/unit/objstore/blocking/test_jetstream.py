"""JetStream: buckets and streams; batches and consumers: ``integration/test_sync.py``, on real servers."""

from __future__ import annotations

import pytest

from natsproto.jetstream.api.errors import StreamNotFoundError
from objstore import BucketNotFoundError, ObjectStoreConfig
from objstore.sync import Client, ObjectStore


def test_buckets(nc: Client) -> None:
    js = nc.jetstream()
    with pytest.raises(BucketNotFoundError):
        js.object_store("a")
    made = [
        js.object_store("a", create=True),
        js.create_object_store("b", description="d"),
        js.create_object_store(ObjectStoreConfig("c")),
        js.update_object_store("b", description="e"),
        js.create_or_update_object_store("b", description="f"),
    ]
    assert all(isinstance(store, ObjectStore) and store.js is js for store in made)
    assert [status.description for status in js.object_store_statuses()] == [None, "f", None]
    assert js.delete_object_store("c")
    assert js.object_store_names() == ["a", "b"]


def test_streams(nc: Client) -> None:
    js = nc.jetstream()
    assert js.create_stream({"name": "S", "subjects": ["s.*"]}).config.name == "S"
    info = js.stream_info("S", timeout=20)
    assert js.update_stream(info.config).config.subjects == ["s.*"]
    assert js.stream_names() == ["S"]
    assert [found.config.name for found in js.streams()] == ["S"]
    ack = js.publish("s.a", b"1", msg_id="1", expected_last_subject_seq=0)
    assert js.publish("s.a", b"1", msg_id="1").duplicate
    assert js.get_message("S", seq=ack.seq).data == b"1"
    js.delete_message("S", ack.seq)
    assert js.purge_stream("S", subject="s.a") == 0
    js.delete_stream("S")
    with pytest.raises(StreamNotFoundError):
        js.stream_info("S")
