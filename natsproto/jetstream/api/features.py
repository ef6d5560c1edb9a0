"""Fields of a configuration that only newer servers have: an older one drops them, or refuses them all."""

from __future__ import annotations

import re

from ...errors import APIError, UnsupportedFeatureError
from .models import ConsumerConfig, StreamConfig

MINIMUM = {
    "filter_subjects": "2.10.0",
    "first_seq": "2.10.0",
    "subject_transform": "2.10.0",
    "consumer_limits": "2.10.0",
    "allow_msg_ttl": "2.11.0",
    "subject_delete_marker_ttl": "2.11.0",
    "pause_until": "2.11.0",
    "priority_groups": "2.11.0",
    "priority_policy": "2.11.0",
    "priority_timeout": "2.11.0",
    "allow_msg_counter": "2.12.0",
    "allow_atomic": "2.12.0",
    "allow_msg_schedules": "2.12.0",
    "persist_mode": "2.12.0",
    "allow_batched": "2.14.0",
}
"""The first nats-server with a field."""

_DEFAULTS = ("default", "none")
"""Values that a server leaves out of its answer, because they are its default."""

_unknown_field = re.compile(r'unknown field "(\w+)"').search

Config = StreamConfig | ConsumerConfig


def check_kept(wanted: Config, answered: Config) -> None:
    """Make sure that the server has kept every field.

    Raises:
        UnsupportedFeatureError: it is too old for one, and has dropped it.
    """
    for name, minimum in MINIMUM.items():
        value = getattr(wanted, name, None)
        if value and value not in _DEFAULTS and not getattr(answered, name):
            what = "stream" if isinstance(wanted, StreamConfig) else "consumer"
            raise UnsupportedFeatureError(name, minimum, f"the server has stored the {what} without it")


def refused_field(wanted: Config, exc: APIError) -> UnsupportedFeatureError | None:
    """Return the error for a field that the server does not know; ``None`` when it refuses something else."""
    found = _unknown_field(exc.description)
    if found is None or not getattr(wanted, found[1], None) or found[1] not in MINIMUM:
        return None
    return UnsupportedFeatureError(found[1], MINIMUM[found[1]])
