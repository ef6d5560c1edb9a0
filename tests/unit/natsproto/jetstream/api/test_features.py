"""Fields that older servers drop or refuse are noticed; what a server leaves out as its default is not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from natsproto.errors import APIError, UnsupportedFeatureError
from natsproto.jetstream.api.features import MINIMUM, VALUES, check_kept, refused
from natsproto.jetstream.api.models import ConsumerConfig, StreamConfig


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (StreamConfig(name="S", allow_batched=True), "allow_batched"),
        (StreamConfig(name="S", first_seq=5), "first_seq"),
        (StreamConfig(name="S", persist_mode="async"), "persist_mode"),
        (StreamConfig(name="S", compression="s2"), "compression"),
        (ConsumerConfig(filter_subjects=["a"]), "filter_subjects"),
        (ConsumerConfig(priority_policy="overflow"), "priority_policy"),
        (ConsumerConfig(priority_timeout=timedelta(seconds=1)), "priority_timeout"),
    ],
)
def test_a_field_that_was_dropped(wanted: StreamConfig | ConsumerConfig, name: str) -> None:
    check_kept("stream", wanted.to_json(), {"config": wanted.to_json()})
    for answer in ({"config": {"name": "S", name: None}}, {}):
        with pytest.raises(UnsupportedFeatureError, match=name) as caught:
            check_kept("stream", wanted.to_json(), answer)
        assert caught.value.minimum == MINIMUM[name]


def test_what_a_server_leaves_out() -> None:
    wanted = StreamConfig(
        name="S",
        allow_batched=False,
        persist_mode="default",
        compression="none",
        first_seq=0,
        description="d",
    )
    check_kept("stream", wanted.to_json(), {"config": {"name": "S"}})
    check_kept("consumer", {"priority_policy": "none", "filter_subjects": []}, {"config": {}})


def test_a_field_that_was_refused() -> None:
    wanted = StreamConfig(name="S", allow_batched=True).to_json()
    found = refused(
        wanted, APIError(400, 10025, 'invalid JSON: json: unknown field "allow_batched" at offset 9')
    )
    assert isinstance(found, UnsupportedFeatureError)
    assert (found.feature, found.minimum) == ("allow_batched", "2.14.0")
    for words in ('unknown field "description"', 'unknown field "allow_atomic"', "invalid JSON", ""):
        exc = APIError(400, 10025, words)
        assert refused(wanted, exc) is exc


@pytest.mark.parametrize(("field", "value"), VALUES)
def test_a_value_that_was_refused(field: str, value: str) -> None:
    for words in (f'invalid JSON: can not unmarshal "\\"{value}\\""', "invalid JSON"):
        found = refused({field: value}, APIError(400, 10025, words))
        assert isinstance(found, UnsupportedFeatureError)
        assert found.minimum == VALUES[field, value]
    for exc in (
        APIError(400, 10025, 'invalid JSON: can not unmarshal "\\"junk\\""'),  # another field's
        APIError(400, 10060, value),
    ):
        assert refused({field: value}, exc) is exc
    other = APIError(400, 10025, "invalid JSON")
    assert refused({field: "explicit"}, other) is other


def test_the_fields_are_ones() -> None:
    known = {*StreamConfig.__dataclass_fields__, *ConsumerConfig.__dataclass_fields__}
    assert {*MINIMUM, *(name for name, _ in VALUES)} <= known
