"""Fields that older servers drop or refuse are noticed; what a server leaves out as its default is not."""

from __future__ import annotations

import pytest

from natsproto.errors import APIError, UnsupportedFeatureError
from natsproto.jetstream.api.features import MINIMUM, Config, check_kept, refused_field
from natsproto.jetstream.api.models import ConsumerConfig, StreamConfig


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (StreamConfig(name="S", allow_batched=True), "allow_batched"),
        (StreamConfig(name="S", first_seq=5), "first_seq"),
        (StreamConfig(name="S", persist_mode="async"), "persist_mode"),
        (ConsumerConfig(filter_subjects=["a"]), "filter_subjects"),
        (ConsumerConfig(priority_policy="overflow"), "priority_policy"),
    ],
)
def test_a_field_that_was_dropped(wanted: Config, name: str) -> None:
    check_kept(wanted, wanted)
    answered = StreamConfig(name="S") if isinstance(wanted, StreamConfig) else ConsumerConfig()
    with pytest.raises(UnsupportedFeatureError, match=name) as caught:
        check_kept(wanted, answered)
    assert caught.value.minimum == MINIMUM[name]


def test_what_a_server_leaves_out() -> None:
    wanted = StreamConfig(name="S", allow_batched=False, persist_mode="default", first_seq=0, description="d")
    check_kept(wanted, StreamConfig(name="S"))
    check_kept(ConsumerConfig(priority_policy="none", filter_subjects=[]), ConsumerConfig())


def test_a_field_that_was_refused() -> None:
    wanted = StreamConfig(name="S", allow_batched=True)
    found = refused_field(
        wanted, APIError(400, 10025, 'invalid JSON: json: unknown field "allow_batched" at offset 9')
    )
    assert found is not None
    assert (found.feature, found.minimum) == ("allow_batched", "2.14.0")
    for words in ('unknown field "description"', 'unknown field "allow_atomic"', "invalid JSON", ""):
        assert refused_field(wanted, APIError(400, 10025, words)) is None


def test_the_fields_are_ones() -> None:
    known = {*StreamConfig.__dataclass_fields__, *ConsumerConfig.__dataclass_fields__}
    assert set(MINIMUM) <= known
