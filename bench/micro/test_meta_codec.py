"""How fast meta messages are written and read, compared with nats-py; a listing reads one for each object.

Run: ``pytest bench/micro/test_meta_codec.py --benchmark-enable --benchmark-group-by=func``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from objstore.format.codec import decode_meta, encode_meta
from objstore.format.models import ObjectHeaders, ObjectInfo, ObjectMetaOptions
from objstore.format.naming import meta_subject

COUNT = 500
TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
SMALL = ObjectInfo(
    "some/object.txt",
    None,
    None,
    123456789,
    942,
    "SHA-256=" + "5b" * 32,
    False,
    TIME,
    "0123456789ABCDEFGHIJKL",
    "bucket",
    options=ObjectMetaOptions(max_chunk_size=131072),
    revision=17,
)
LARGE = replace(
    SMALL,
    description="what it is " * 10,
    headers=ObjectHeaders({f"Header-{n}": ["one value", "another"] for n in range(10)}),
    metadata={f"key-{n}": "value " * 5 for n in range(20)},
)
METAS = pytest.mark.parametrize("info", [SMALL, LARGE], ids=["small", "large"])


def decode(payload: bytes, subject: str | None) -> ObjectInfo:
    for _ in range(COUNT):
        info = decode_meta(payload, bucket="bucket", subject=subject, revision=17, timestamp=TIME)
    return info


@METAS
def test_encode(measure: Any, info: ObjectInfo) -> None:
    payload = measure(lambda: [encode_meta(info) for _ in range(COUNT)], count=COUNT)[-1]
    assert decode(payload, None) == info


@METAS
def test_decode(measure: Any, info: ObjectInfo) -> None:
    """With the subject, as in a listing and a get: the name must be the one that the subject encodes."""
    subject = meta_subject("bucket", info.name)
    assert measure(decode, encode_meta(info), subject, count=COUNT) == info


@METAS
def test_decode_nats_py(measure: Any, info: ObjectInfo) -> None:
    api = pytest.importorskip("nats.js.api")
    payload = encode_meta(info)
    found = measure(
        lambda: [api.ObjectInfo.from_response(json.loads(payload)) for _ in range(COUNT)], count=COUNT
    )
    assert (found[-1].name, found[-1].size, found[-1].chunks) == (info.name, info.size, info.chunks)
