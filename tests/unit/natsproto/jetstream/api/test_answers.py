"""Answers of the API begin with their type."""

from __future__ import annotations

import pytest

from natsproto.jetstream.api.answers import answer_begins


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        ("INFO", "account_info"),
        ("STREAM.INFO.S", "stream_info"),
        ("STREAM.CREATE.S", "stream_create"),
        ("STREAM.MSG.GET.S", "stream_msg_get"),
        ("STREAM.MSG.DELETE.S", "stream_msg_delete"),
        ("STREAM.PEER.REMOVE.S", "stream_remove_peer"),
        ("STREAM.NAMES", "stream_names"),
        ("CONSUMER.CREATE.S", "consumer_create"),
        ("CONSUMER.CREATE.S.c.orders.new", "consumer_create"),
        ("CONSUMER.DURABLE.CREATE.S.c", "consumer_create"),
        ("CONSUMER.INFO.MSG.GET", "consumer_info"),
        ("CONSUMER.PAUSE.S.c", "consumer_pause"),
    ],
)
def test_the_type_comes_first(suffix: str, kind: str) -> None:
    assert answer_begins(suffix) == b'{"type":"io.nats.jetstream.api.v1.%b_response"' % kind.encode()


@pytest.mark.parametrize("suffix", ["META.LEADER.STEPDOWN", "STREAM", "", "INFORMATION", "SERVER.REMOVE"])
def test_any_type_of_what_is_not_known(suffix: str) -> None:
    assert answer_begins(suffix) == b'{"type":"io.nats.jetstream.api.v1.'
