"""Real answers of the API begin with their type, as the client demands: those that refuse, too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from natsproto.aio.client import Client
from natsproto.errors import RequestTimeoutError
from natsproto.jetstream.api.answers import answer_begins

S = {"name": "ANSWERS", "subjects": ["answers.>"]}
C = {"name": "c", "ack_policy": "explicit", "filter_subject": "answers.a"}
NEWER = ("CONSUMER.PAUSE", "CONSUMER.RESET", "CONSUMER.UNPIN")
"""Calls that the oldest server does not know."""

CALLS: list[tuple[str, Any]] = [
    ("INFO", None),
    ("STREAM.CREATE.ANSWERS", S),
    ("STREAM.UPDATE.ANSWERS", {**S, "description": "d"}),
    ("STREAM.INFO.ANSWERS", {"subjects_filter": ">"}),
    ("STREAM.NAMES", {"offset": 0}),
    ("STREAM.LIST", {"offset": 0}),
    ("STREAM.MSG.GET.ANSWERS", {"seq": 1}),
    ("STREAM.MSG.DELETE.ANSWERS", {"seq": 1}),
    ("STREAM.PURGE.ANSWERS", None),
    ("STREAM.SNAPSHOT.ANSWERS", None),
    ("STREAM.RESTORE.ANSWERS", None),
    ("STREAM.PEER.REMOVE.ANSWERS", {"peer": "x"}),
    ("STREAM.LEADER.STEPDOWN.ANSWERS", None),
    ("CONSUMER.CREATE.ANSWERS.c", {"stream_name": "ANSWERS", "config": C}),
    ("CONSUMER.CREATE.ANSWERS.c.answers.a", {"stream_name": "ANSWERS", "config": C}),
    ("CONSUMER.CREATE.ANSWERS", {"stream_name": "ANSWERS", "config": {"deliver_subject": "x"}}),
    (
        "CONSUMER.DURABLE.CREATE.ANSWERS.d",
        {"stream_name": "ANSWERS", "config": {"durable_name": "d", "ack_policy": "explicit"}},
    ),
    ("CONSUMER.INFO.ANSWERS.c", None),
    ("CONSUMER.NAMES.ANSWERS", {"offset": 0}),
    ("CONSUMER.LIST.ANSWERS", {"offset": 0}),
    ("CONSUMER.PAUSE.ANSWERS.c", {}),
    ("CONSUMER.RESET.ANSWERS.c", None),
    ("CONSUMER.UNPIN.ANSWERS.c", {"group": "g"}),
    ("CONSUMER.LEADER.STEPDOWN.ANSWERS.d", None),
    ("CONSUMER.DELETE.ANSWERS.c", None),
    ("STREAM.DELETE.ANSWERS", None),
]


async def test_every_answer(nc: Client, request: pytest.FixtureRequest) -> None:
    refused = 0
    for suffix, document in [
        *CALLS,
        *reversed(CALLS[2:]),
    ]:  # and, the other way round, of a stream that is gone
        payload = b"" if document is None else json.dumps(document).encode()
        try:
            answer = bytes(
                (
                    await nc.request(
                        f"$JS.API.{suffix}", payload, timeout=0.2 if suffix.startswith(NEWER) else 5.0
                    )
                ).data
            )
        except RequestTimeoutError:
            assert suffix.startswith(NEWER), suffix
            continue
        begins = answer_begins(suffix)
        assert begins.endswith(b'_response"'), suffix
        assert answer.startswith(begins), answer[:200]
        refused += answer.startswith(begins + b',"error":{')
    assert refused >= 20
