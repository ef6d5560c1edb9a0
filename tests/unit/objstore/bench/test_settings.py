"""Settings: what follows from what was not given, and what a result says of them."""

from __future__ import annotations

import json

import pytest

from objstore.bench.settings import MESSAGE_WORKS, OBJECT_WORKS, Settings
from objstore.bench.sizes import Part, Sizes

MIB = 1024 * 1024


def settings(work: str, size: int = MIB, **others: object) -> Settings:
    return Settings(work, Sizes([Part(size, size, 1)], str(size)), **others)  # type: ignore[arg-type]


def test_how_many_objects_are_stored_before() -> None:
    assert settings("get").prepared == 256
    assert settings("get", 1024).prepared == 1000
    assert settings("get", 0).prepared == 1000
    assert settings("range", 1024 * MIB).prepared == 1
    assert settings("get", objects=7).prepared == 7
    assert settings("put").prepared == settings("put", objects=7).prepared == 0
    assert settings("request").prepared == 0


def test_how_many_messages_one_operation_publishes() -> None:
    assert settings("publish", 16).messages == 1000
    assert settings("publish", MIB).messages == 1
    assert settings("subscribe", 128 * 1024).messages == 8
    assert settings("publish", 16, rate=100.0).messages == 1
    assert settings("publish", 16, rate=100.0, batch=5).messages == 5
    assert settings("request", 16, batch=5).messages == 1
    assert settings("get").messages == 1


@pytest.mark.parametrize("work", [*OBJECT_WORKS, *MESSAGE_WORKS])
def test_the_document_has_what_applies(work: str) -> None:
    found = json.loads(json.dumps(settings(work).document()))
    assert found["work"] == work
    assert found["sizes"] == str(MIB)
    assert ("mix" in found) == (work == "mixed")
    assert ("range_size" in found) == (work == "range")
    assert ("batch" in found) == (work in MESSAGE_WORKS)
    assert {"storage", "replicas", "objects", "chunk_size"} <= set(found) or work in MESSAGE_WORKS
    assert not {"storage", "objects"} & set(found) or work in OBJECT_WORKS


def test_whether_it_needs_a_bucket() -> None:
    assert settings("list").on_objects
    assert not settings("publish").on_objects
