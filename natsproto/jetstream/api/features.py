"""Configurations that only newer servers keep: older ones drop a field, or refuse it, or a value of it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...errors import APIError, UnsupportedFeatureError

MINIMUM = {
    "filter_subjects": "2.10.0",
    "first_seq": "2.10.0",
    "subject_transform": "2.10.0",
    "consumer_limits": "2.10.0",
    "compression": "2.10.0",
    "metadata": "2.10.0",
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
"""The first nats-server with a field of a stream or consumer."""

VALUES = {
    ("priority_policy", "prioritized"): "2.12.0",
    ("ack_policy", "flow_control"): "2.14.0",
}
"""The first nats-server with a value of a field that it had before."""

BAD_JSON = 10025
"""Error code for, among other things, a field or a value that the server does not know."""

_DEFAULTS = ("default", "none")
"""Values that a server leaves out of its answer, because they are its default."""

_unknown_field = re.compile(r'unknown field "(\w+)"').search


def check_kept(what: str, wanted: Mapping[str, object], answer: Mapping[str, object]) -> None:
    """Make sure that the server has kept every field; the stream or consumer stays as it was created.

    Args:
        what: ``stream`` or ``consumer``.
        wanted: the configuration that was sent.
        answer: the answer, with the one that was stored.

    Raises:
        UnsupportedFeatureError: the server is too old for a field, and has dropped it.
    """
    config = answer.get("config")
    kept = config if isinstance(config, dict) else {}
    for name, minimum in MINIMUM.items():
        value = wanted.get(name)
        if value and value not in _DEFAULTS and not kept.get(name):
            raise UnsupportedFeatureError(name, minimum, f"the server has stored the {what} without it")


def refused(wanted: Mapping[str, object], exc: APIError) -> APIError | UnsupportedFeatureError:
    """Return the error for a refused configuration: that it is too new for the server, or ``exc`` itself."""
    found = _unknown_field(exc.description)
    if found is not None and wanted.get(found[1]) and found[1] in MINIMUM:
        return UnsupportedFeatureError(found[1], MINIMUM[found[1]])
    if exc.err_code == BAD_JSON:
        for (name, value), minimum in VALUES.items():
            # Servers before 2.11 do not say what they do not know.
            if wanted.get(name) == value and (value in exc.description or exc.description == "invalid JSON"):
                return UnsupportedFeatureError(f"{name} {value!r}", minimum, exc.description)
    return exc
