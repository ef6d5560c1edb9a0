"""Stored messages in the answers of a leader."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from natsproto.errors import RemoteProtocolError
from natsproto.jetstream.api.messages import leader_message

MESSAGE = {"subject": "s.a", "seq": 7, "data": "MQ==", "time": "2024-01-01T00:00:00Z"}


def test_a_message() -> None:
    found = leader_message({"message": MESSAGE})
    assert (found.subject, found.seq, found.data, found.header) == ("s.a", 7, b"1", None)
    assert found.time == datetime(2024, 1, 1, tzinfo=UTC)
    found = leader_message({"message": {**MESSAGE, "data": None, "hdrs": "TkFUUy8xLjANCg0K"}})
    assert (found.data, found.header) == (b"", b"NATS/1.0\r\n\r\n")


@pytest.mark.parametrize(
    "message",
    [None, [], {}]
    + [
        {**MESSAGE, **wrong}
        for wrong in ({"subject": 1}, {"seq": "7"}, {"data": "M"}, {"hdrs": 1}, {"time": 0})
    ],
)
def test_none(message: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        leader_message({"message": message})
