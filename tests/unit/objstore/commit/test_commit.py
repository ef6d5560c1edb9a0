"""The commit of a meta message against scripted answers."""

from __future__ import annotations

import pytest

from natsproto.errors import APIError, NatsError, RemoteProtocolError, WrongStreamError
from natsproto.jetstream.api.models import StreamInfo
from objstore.bucket.bucket import Bucket
from objstore.commit.commit import Commit
from support.fake_session import FakeServer

CREATED = {"config": {"name": "OBJ_b"}, "state": {}, "created": "2024-01-01T00:00:00Z"}


async def commit(answer: bytes) -> int:
    """What a commit makes of one answer."""
    server = FakeServer()
    server.session.on_pub = lambda pub: server.reply(pub, answer)
    bucket = Bucket(server.client.jetstream(timeout=0.5), "b", StreamInfo.from_json(CREATED))
    return (await Commit(bucket, "a", b"{}", expected=0, nuid="N")._publish(0, "id", 0.5)).seq


@pytest.mark.parametrize(
    "answer",
    [
        b'{"stream":"OBJ_b","seq":7}',
        b'{"stream":"OBJ_b", "seq":7}',
        b'{"stream": "OBJ_b", "seq": 7}',
        b'{"stream":"OBJ_b","seq":7,"duplicate":true}',
        b'{"seq":7,"stream":"OBJ_b"}',
    ],
)
async def test_acknowledgement(answer: bytes) -> None:
    assert await commit(answer) == 7


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'{"stream":"OBJ_c","seq":7}', WrongStreamError),  # stored, but where nobody looks for it
        (b'{"stream":"OBJ_b2","seq":7}', WrongStreamError),
        (b'{"stream":"OBJ_b","seq":7,"domain":"hub"}', WrongStreamError),
        (b'{"error":{"code":503,"err_code":10077,"description":"full"},"stream":"OBJ_b","seq":0}', APIError),
        (b'{"stream":"OBJ_b","seq":07}', NatsError),
        (b'{"stream":"OBJ_b","seq":}', NatsError),
        (b'{"stream":"OBJ_b"}', RemoteProtocolError),
        (b"", RemoteProtocolError),
    ],
)
async def test_no_acknowledgement(answer: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await commit(answer)
