"""Which ways to read are refused: for how long, and by what."""

from __future__ import annotations

from natsproto.errors import (
    APIError,
    PermissionsViolationError,
)
from natsproto.jetstream.api.errors import MaxConsumersError
from objstore.bucket.bucket import Bucket
from objstore.bucket.ways import CONSUMER, REFUSED_FOR
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
