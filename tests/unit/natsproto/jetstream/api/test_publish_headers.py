"""Options of a publish as headers; what makes no sense is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from natsproto.errors import BadSubjectError, ConfigError, LocalProtocolError
from natsproto.headers import Headers, parse_headers
from natsproto.jetstream.api.publish_headers import LONGEST_TTL, PublishOptions, publish_header


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"stream": "S"}, ["Nats-Expected-Stream: S"]),
        ({"msg_id": "1"}, ["Nats-Msg-Id: 1"]),
        ({"expected_last_seq": 0}, ["Nats-Expected-Last-Sequence: 0"]),
        ({"expected_last_subject_seq": 7}, ["Nats-Expected-Last-Subject-Sequence: 7"]),
        ({"expected_last_msg_id": "é"}, ["Nats-Expected-Last-Msg-Id: é"]),
        ({"ttl": timedelta(seconds=1)}, ["Nats-TTL: 1s"]),
        ({"ttl": timedelta(milliseconds=1500)}, ["Nats-TTL: 2s"]),
        ({"ttl": timedelta(days=1)}, ["Nats-TTL: 86400s"]),
        ({"ttl": "never"}, ["Nats-TTL: never"]),
        (
            {"expected_last_subject_seq": 7, "expected_last_subject_seq_subject": "a.*"},
            [
                "Nats-Expected-Last-Subject-Sequence: 7",
                "Nats-Expected-Last-Subject-Sequence-Subject: a.*",
            ],
        ),
    ],
)
def test_options(options: PublishOptions, lines: list[str]) -> None:
    assert publish_header(None, **options).decode().split("\r\n")[1:-2] == lines


def test_headers_of_the_application() -> None:
    """An option is written over a header of its name: it counts once."""
    assert publish_header(None) == publish_header({}) == b""
    assert publish_header({"A": ["1", "2"]}) == b"NATS/1.0\r\nA: 1\r\nA: 2\r\n\r\n"
    block = publish_header(Headers({"nats-msg-id": "theirs", "A": "1"}), msg_id="ours")
    found = parse_headers(block).headers
    assert (found.get_all("Nats-Msg-Id"), found["A"]) == (["ours"], "1")


@pytest.mark.parametrize(
    "options",
    [
        {"stream": ""},  # a server would ignore it: the message is stored wherever it comes to
        {"stream": 5},
        {"msg_id": ""},
        {"msg_id": 5},
        {"expected_last_msg_id": ""},
        {"expected_last_seq": -1},
        {"expected_last_seq": 1 << 64},
        {"expected_last_seq": True},
        {"expected_last_seq": "5"},
        {"expected_last_subject_seq": 1.0},
        {"expected_last_subject_seq_subject": "a"},
        {"ttl": timedelta(milliseconds=999)},
        {"ttl": timedelta(seconds=-5)},
        {"ttl": LONGEST_TTL + timedelta(seconds=1)},
        {"ttl": 5},
        {"ttl": "5s"},
    ],
)
def test_what_makes_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        publish_header(None, **options)


def test_what_is_no_text() -> None:
    with pytest.raises(BadSubjectError):
        publish_header(None, expected_last_subject_seq=1, expected_last_subject_seq_subject="a b")
    with pytest.raises(LocalProtocolError):
        publish_header(None, msg_id="1\r\n")
    with pytest.raises(TypeError):
        publish_header(None, expected_sequence=1)  # type: ignore[call-arg]
