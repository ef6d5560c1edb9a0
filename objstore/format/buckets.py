"""A bucket's configuration as the JSON of its stream, and back (ADR-20, "Stream Configuration")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from objstore.errors import BadBucketError
from objstore.format.codec import MAX_INTEGER, is_utf8
from objstore.format.models import ObjectStoreConfig, ObjectStoreStatus, Placement
from objstore.format.naming import OBJ_STREAM_TEMPLATE, check_bucket, stream_name

FIELD_MINIMUM_VERSION = {"compression": "2.10.0", "metadata": "2.10.0", "allow_direct": "2.9.0"}
"""First nats-server version that keeps a field of the stream configuration; older ones drop it silently."""

_MIN_TTL = timedelta(milliseconds=100)  # the server refuses a smaller max_age


def stream_config(config: ObjectStoreConfig) -> dict[str, Any]:
    """Check a bucket's configuration and return that of its stream.

    Only what differs from the server's defaults is there, and no key the server might not know.

    Raises:
        BadBucketError: a name or value that cannot be used.
    """
    bucket = check_bucket(config.bucket)

    def bad(what: str) -> BadBucketError:
        return BadBucketError(f"bucket {bucket!r}: {what}", bucket=bucket)

    doc: dict[str, Any] = {
        "name": stream_name(bucket),
        "subjects": [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        "retention": "limits",
        "discard": "new",
        "max_age": 0,
        "max_bytes": -1,
        "storage": config.storage,
        "num_replicas": config.replicas,
        "allow_rollup_hdrs": True,
        "allow_direct": config.allow_direct,
    }
    if config.description is not None:
        if not isinstance(config.description, str) or not is_utf8(config.description):
            raise bad("the description is a str that can be written as UTF-8")
        if config.description:
            doc["description"] = config.description
    if config.ttl is not None:
        if not isinstance(config.ttl, timedelta):
            raise bad(f"ttl is a timedelta, not {type(config.ttl).__name__}")
        if config.ttl < timedelta(0):
            raise bad(f"ttl must not be negative, got {config.ttl}")
        if timedelta(0) < config.ttl < _MIN_TTL:
            raise bad("a ttl below 100 ms is not supported by the server")
        doc["max_age"] = config.ttl // timedelta(microseconds=1) * 1000
        if doc["max_age"] > MAX_INTEGER:
            raise bad(f"ttl is too long: {config.ttl}")
    if config.max_bytes is not None:
        if not isinstance(config.max_bytes, int) or isinstance(config.max_bytes, bool):
            raise bad(f"max_bytes is an int, not {type(config.max_bytes).__name__}")
        if not -1 <= config.max_bytes <= MAX_INTEGER:
            raise bad(f"max_bytes is -1 for no limit, or positive, got {config.max_bytes}")
        doc["max_bytes"] = config.max_bytes or -1
    if config.storage not in ("file", "memory"):
        raise bad(f"storage is 'file' or 'memory', got {config.storage!r}")
    if not isinstance(config.replicas, int) or isinstance(config.replicas, bool):
        raise bad(f"replicas is an int, not {type(config.replicas).__name__}")
    if not 1 <= config.replicas <= 5:
        raise bad(f"replicas is 1 to 5, got {config.replicas}")
    for field in ("compression", "allow_direct"):
        if not isinstance(getattr(config, field), bool):
            raise bad(f"{field} is a bool, not {type(getattr(config, field)).__name__}")
    if config.compression:
        doc["compression"] = "s2"
    placement = _encode_placement(config.placement, bad)
    if placement:
        doc["placement"] = placement
    if config.metadata is not None:
        if not isinstance(config.metadata, Mapping):
            raise bad(f"metadata is a mapping, not {type(config.metadata).__name__}")
        for key, value in config.metadata.items():
            if not (isinstance(key, str) and isinstance(value, str) and is_utf8(key) and is_utf8(value)):
                raise bad("metadata maps str to str that can be written as UTF-8")
        if config.metadata:
            doc["metadata"] = dict(config.metadata)
    return doc


def _encode_placement(placement: Placement | None, bad: Callable[[str], BadBucketError]) -> dict[str, Any]:
    if placement is None:
        return {}
    if not isinstance(placement, Placement):
        raise bad(f"placement is a Placement, not {type(placement).__name__}")
    doc: dict[str, Any] = {}
    if placement.cluster is not None:
        if not isinstance(placement.cluster, str):
            raise bad(f"the cluster is a str, not {type(placement.cluster).__name__}")
        if placement.cluster:
            doc["cluster"] = placement.cluster
    tags = placement.tags
    if isinstance(tags, str) or not isinstance(tags, Sequence) or not all(isinstance(t, str) for t in tags):
        raise bad("placement tags are a sequence of str")
    if tags:
        doc["tags"] = list(tags)
    return doc


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def bucket_config(config: Mapping[str, Any]) -> ObjectStoreConfig:
    """Return the bucket's configuration that a stream's configuration, as the server gives it, stands for."""
    name = str(config.get("name") or "")
    placement = _as_dict(config.get("placement"))
    metadata = _own_metadata(config.get("metadata"))
    return ObjectStoreConfig(
        name.removeprefix(OBJ_STREAM_TEMPLATE.format(bucket="")),
        config.get("description") or None,
        timedelta(microseconds=(config.get("max_age") or 0) // 1000) or None,
        config.get("max_bytes") or -1,
        config.get("storage") or "file",
        config.get("num_replicas") or 1,
        Placement(placement.get("cluster") or None, tuple(placement.get("tags") or ()))
        if placement
        else None,
        metadata or None,
        compression=(config.get("compression") or "none") != "none",
        allow_direct=bool(config.get("allow_direct")),
    )


def _own_metadata(value: Any) -> dict[str, str]:
    """Leave out what the server itself adds, from 2.11 on."""
    return {key: item for key, item in _as_dict(value).items() if not key.startswith("_nats.")}


def store_status(stream_info: Mapping[str, Any], count: int) -> ObjectStoreStatus:
    """Return a bucket's status.

    Args:
        stream_info: the answer to STREAM.INFO, at least its ``config`` and ``state``.
        count: live objects, counted by the caller.
    """
    raw = _as_dict(stream_info.get("config"))
    config = bucket_config(raw)
    return ObjectStoreStatus(
        config.bucket,
        config.description,
        config.ttl,
        config.storage,
        config.replicas,
        bool(raw.get("sealed")),
        _as_dict(stream_info.get("state")).get("bytes") or 0,
        count,
        "JetStream",
        metadata=config.metadata or {},
        compression=config.compression,
        max_bytes=config.max_bytes,
        placement=config.placement,
        allow_direct=config.allow_direct,
    )


def config_matches(echoed: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields of ``wanted`` that the server dropped or changed, ``[]`` when none.

    What the server adds (defaults, ``_nats.…`` metadata) does not count, nor does leaving out an empty value.

    Args:
        echoed: the ``config`` in the server's answer.
        wanted: what was sent, see :func:`stream_config`; :data:`FIELD_MINIMUM_VERSION` says which server
            version first keeps a field.
    """
    return [key for key, value in wanted.items() if not _kept(echoed.get(key), value)]


def _kept(echo: Any, value: Any) -> bool:
    if isinstance(value, Mapping):
        theirs = _as_dict(echo)
        return all(_kept(theirs.get(key), item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return sorted(echo or ()) == sorted(value)
    return echo == value or (not echo and not value)
