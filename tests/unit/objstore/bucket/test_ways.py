"""Which ways to read are refused: for how long, and by what."""

from __future__ import annotations

import pytest

from natsproto.errors import (
    APIError,
    PermissionsViolationError,
)
from natsproto.jetstream.api.errors import MaxConsumersError
from objstore.bucket.bucket import Bucket
from objstore.bucket.ways import BY_SUBJECT, CONSUMER, DIRECT, LEADER, PAGES, REFUSED_FOR, Ways
from support.clock import Clock


async def test_an_error_of_another_consumer_refuses_nothing(bucket: Bucket) -> None:
    """A peer can have that sent to us once; the right to create consumers is a matter of days."""
    too_many = MaxConsumersError(400, 10026, "maximum consumers limit reached")
    assert bucket.ways.note_refusal(too_many)
    assert bucket.ways.allowed(CONSUMER)
    assert bucket.ways.note_refusal(too_many)
    assert not bucket.ways.allowed(CONSUMER)
    assert bucket.ways.has_right(CONSUMER), "no proof is left out because of it"
    bucket.ways.forget_refusals()
    assert bucket.ways.note_refusal(too_many)
    assert bucket.ways.allowed(CONSUMER), "and not what came before"
    bucket.ways.forget_refusals()
    assert not bucket.ways.note_refusal(APIError(400, 10003, "bad request")), (
        "it is no answer to the creation"
    )
    assert bucket.ways.allowed(CONSUMER)
    lacks = PermissionsViolationError("no", subject="$JS.API.CONSUMER.CREATE.OBJ_b.x", operation="publish")
    assert bucket.ways.note_refusal(lacks)
    assert not bucket.ways.allowed(CONSUMER)
    assert not bucket.ways.has_right(CONSUMER)
    Clock().forward(REFUSED_FOR + 1)
    assert bucket.ways.has_right(CONSUMER)
    assert bucket.ways.allowed(CONSUMER)


@pytest.mark.parametrize(
    ("prefix", "subject", "way"),
    [
        ("$JS.API", "$JS.API.STREAM.MSG.GET.OBJ_b", LEADER),
        ("$JS.API", "$JS.hub.API.STREAM.MSG.GET.OBJ_b", LEADER),
        ("$JS.hub.API", "$JS.API.DIRECT.GET.OBJ_b", DIRECT),
        ("$JS.hub.API", "$JS.API.DIRECT.GET.OBJ_b.$O.b.M.x", BY_SUBJECT),
        ("$JS.hub.API", "$JS.API.CONSUMER.CREATE.OBJ_b.x", CONSUMER),
        ("$JS.hub.API", "$JS.API.CONSUMER.MSG.NEXT.OBJ_b.x", PAGES),
        ("$JS.hub.API", "$JS.leaf.API.DIRECT.GET.OBJ_b", None),
        ("$JS.hub.API", "$JS.API.DIRECT.GET.OBJ_c", None),
        ("$JS.hub.API", "$O.b.M.x", None),
        ("acme.API", "acme.API.DIRECT.GET.OBJ_b", DIRECT),
        ("acme.API", "$JS.API.DIRECT.GET.OBJ_b", None),
        ("$JS.API", "acme.API.DIRECT.GET.OBJ_b", None),
    ],
)
async def test_a_way_under_either_prefix(bucket: Bucket, prefix: str, subject: str, way: str | None) -> None:
    """The rights that an error asks for are those that the server has named."""
    ways = Ways(bucket.connection, prefix, "OBJ_b")
    assert ways.right_to(LEADER) == f"{prefix}.STREAM.MSG.GET.OBJ_b"
    error = PermissionsViolationError("no", subject=subject, operation="publish")
    assert ways.refused_by(error) == way
    assert ways.note_refusal(error) is (way is not None)
    if way is not None:
        assert not ways.allowed(way)
        assert ways.right_to(LEADER) == f"{subject[: subject.index('API.')]}API.STREAM.MSG.GET.OBJ_b"
