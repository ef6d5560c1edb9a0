"""A bucket's configuration as the JSON of its stream, and back (ADR-20, "Stream Configuration")."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta

from natsproto.errors import RemoteProtocolError
from objstore.errors import BadBucketError
from objstore.format.codec import MAX_INTEGER, is_utf8, parse_rfc3339
from objstore.format.models import BucketSource, ObjectStoreConfig, ObjectStoreStatus, Placement
from objstore.format.naming import OBJ_STREAM_TEMPLATE, VALID_BUCKET_RE, check_bucket, stream_name

FIELD_MINIMUM_VERSION = {
    "allow_direct": "2.9.0",
    "compression": "2.10.0",
    "metadata": "2.10.0",
    "mirror": "2.10.0",
    "sources": "2.10.0",
    "allow_msg_ttl": "2.11.0",
    "allow_atomic": "2.12.0",
}
"""First nats-server version that keeps a field of the stream configuration; older ones drop it silently."""

_BUCKET = re.compile(VALID_BUCKET_RE)
_STREAM_FIELDS = {
    "description": "description",
    "ttl": "max_age",
    "max_bytes": "max_bytes",
    "storage": "storage",
    "replicas": "num_replicas",
    "placement": "placement",
    "metadata": "metadata",
    "compression": "compression",
    "allow_direct": "allow_direct",
    "allow_atomic": "allow_atomic",
    "allow_msg_ttl": "allow_msg_ttl",
    "mirror": "mirror",
    "sources": "sources",
}
"""The field of the stream's configuration for each field of a bucket's."""

_MIN_TTL = timedelta(milliseconds=100)  # the server refuses a smaller max_age


def stream_config(config: ObjectStoreConfig) -> dict[str, object]:
    """Check a bucket's configuration and return the configuration of its stream.

    It sets only what differs from the server's defaults, so no key that an older server might not know.

    Raises:
        BadBucketError: a name or value is not valid.
    """
    bucket = check_bucket(config.bucket)

    def bad(what: str) -> BadBucketError:
        return BadBucketError(f"bucket {bucket!r}: {what}", bucket=bucket)

    doc: dict[str, object] = {
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
        max_age = config.ttl // timedelta(microseconds=1) * 1000
        if max_age > MAX_INTEGER:
            raise bad(f"ttl is too long: {config.ttl}")
        doc["max_age"] = max_age
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
    for field in ("compression", "allow_direct", "allow_atomic", "allow_msg_ttl"):
        if not isinstance(getattr(config, field), bool):
            raise bad(f"{field} is a bool, not {type(getattr(config, field)).__name__}")
    if config.compression:
        doc["compression"] = "s2"
    for field in ("allow_atomic", "allow_msg_ttl"):
        if getattr(config, field):
            doc[field] = True
    if config.mirror is not None:
        if config.sources:
            raise bad("a mirror copies one bucket only: sources and mirror exclude each other")
        mirror = _encode_source(bucket, config.mirror, bad)
        doc["mirror"] = mirror
        if config.allow_direct and "subject_transforms" not in mirror:
            doc["mirror_direct"] = True  # a mirror then answers for its origin: the subjects must be the same
        del doc["subjects"]  # a mirror has no subjects of its own
        del doc["allow_rollup_hdrs"]
    if isinstance(config.sources, str) or not isinstance(config.sources, Sequence):
        raise bad("sources is a sequence of buckets")
    if config.sources:
        doc["sources"] = [_encode_source(bucket, source, bad) for source in config.sources]
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


def _encode_source(
    bucket: str, source: BucketSource | str, bad: Callable[[str], BadBucketError]
) -> dict[str, object]:
    """Return the source as JSON; the server maps the subjects of another bucket to this bucket's."""
    if isinstance(source, str):
        source = BucketSource(source)
    if not isinstance(source, BucketSource):
        raise bad(f"a source is a bucket's name or a BucketSource, not {type(source).__name__}")
    origin = check_bucket(source.bucket)
    doc: dict[str, object] = {"name": stream_name(origin)}
    if source.domain is not None:
        if (
            not isinstance(source.domain, str)
            or not source.domain.replace("-", "").replace("_", "").isalnum()
        ):
            raise bad(f"not a JetStream domain: {source.domain!r}")
        doc["external"] = {"api": f"$JS.{source.domain}.API"}
    elif origin == bucket:
        raise bad("a bucket cannot be its own source")
    if origin != bucket:
        doc["subject_transforms"] = [{"src": f"$O.{origin}.>", "dest": f"$O.{bucket}.>"}]
    return doc


def _decode_source(value: object) -> BucketSource | None:
    doc = _as_dict(value)
    name = doc.get("name")
    if not isinstance(name, str):
        return None
    api = _as_dict(doc.get("external")).get("api")
    tokens = api.split(".") if isinstance(api, str) else []
    domain = tokens[1] if len(tokens) == 3 and tokens[0] == "$JS" else None
    return BucketSource(name.removeprefix("OBJ_"), domain)


def _encode_placement(placement: Placement | None, bad: Callable[[str], BadBucketError]) -> dict[str, object]:
    if placement is None:
        return {}
    if not isinstance(placement, Placement):
        raise bad(f"placement is a Placement, not {type(placement).__name__}")
    doc: dict[str, object] = {}
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


def _as_dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(document: Mapping[str, object], key: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise _wrong(key, value)
    return value or None


def _number(document: Mapping[str, object], key: str) -> int:
    """Return a number of the API, which has 64 bits; 0 when it is absent."""
    value = document.get(key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not -1 << 63 <= value < 1 << 64:
        raise _wrong(key, value)
    return value


def _list(document: Mapping[str, object], key: str) -> Sequence[object]:
    value = document.get(key)
    if value is not None and not isinstance(value, list | tuple):
        raise _wrong(key, value)
    return value or ()


def _wrong(key: str, value: object) -> RemoteProtocolError:
    return RemoteProtocolError(f"an API response has a bad type or size in {key!r}: {type(value).__name__}")


def bucket_config(config: Mapping[str, object]) -> ObjectStoreConfig:
    """Return the bucket's configuration for its stream's configuration as the server reports it.

    Raises:
        RemoteProtocolError: a field has the wrong type, or its number is out of range.
    """
    name = _text(config, "name") or ""
    placement = _as_dict(config.get("placement"))
    cluster = _text(placement, "cluster")
    tags = _list(placement, "tags")
    texts = tuple(tag for tag in tags if isinstance(tag, str))
    if len(texts) != len(tags):
        raise _wrong("tags", tags)
    metadata = _own_metadata(config.get("metadata"))
    return ObjectStoreConfig(
        name.removeprefix(OBJ_STREAM_TEMPLATE.format(bucket="")),
        _text(config, "description"),
        timedelta(microseconds=_number(config, "max_age") // 1000) or None,
        _number(config, "max_bytes") or -1,
        _text(config, "storage") or "file",
        _number(config, "num_replicas") or 1,
        Placement(cluster, texts) if cluster or texts else None,
        metadata or None,
        compression=(_text(config, "compression") or "none") != "none",
        allow_direct=bool(config.get("allow_direct")),
        allow_atomic=bool(config.get("allow_atomic")),
        allow_msg_ttl=bool(config.get("allow_msg_ttl")),
        mirror=_decode_source(config.get("mirror")),
        sources=tuple(filter(None, map(_decode_source, _list(config, "sources")))),
    )


def _own_metadata(value: object) -> dict[str, str]:
    """Return the metadata without the pairs that the server adds, from 2.11 on."""
    own: dict[str, str] = {}
    for key, item in _as_dict(value).items():
        if not isinstance(item, str):
            raise _wrong("metadata", value)
        if not key.startswith("_nats."):
            own[key] = item
    return own


def store_status(stream_info: Mapping[str, object], count: int) -> ObjectStoreStatus:
    """Return a bucket's status.

    Args:
        stream_info: the response to STREAM.INFO, at least its ``config`` and ``state``.
        count: live objects, counted by the caller.

    Raises:
        RemoteProtocolError: a field has the wrong type, or is not a valid number or time.
    """
    raw = _as_dict(stream_info.get("config"))
    config = bucket_config(raw)
    state = _as_dict(stream_info.get("state"))
    created = _text(stream_info, "created")
    try:
        since = None if created is None else parse_rfc3339(created)
    except ValueError as exc:
        raise RemoteProtocolError(f"an API response has no valid time in 'created': {exc}") from None
    return ObjectStoreStatus(
        config.bucket,
        config.description,
        config.ttl,
        config.storage,
        config.replicas,
        bool(raw.get("sealed")),
        _number(state, "bytes"),
        count,
        "JetStream",
        metadata=config.metadata or {},
        compression=config.compression,
        max_bytes=config.max_bytes,
        placement=config.placement,
        allow_direct=config.allow_direct,
        allow_atomic=config.allow_atomic,
        allow_msg_ttl=config.allow_msg_ttl,
        mirror=_decode_source(raw.get("mirror")),
        sources=tuple(filter(None, map(_decode_source, _list(raw, "sources")))),
        messages=_number(state, "messages"),
        consumers=_number(state, "consumer_count"),
        created=since,
        raw=stream_info,
    )


def changes_of(
    current: Mapping[str, object], wanted: Mapping[str, object], given: Collection[str] | None = None
) -> dict[str, object]:
    """Return the fields of a stream's configuration that an update of its bucket changes, ``None`` to remove.

    A field that reads the same in both stays as it is in ``current``: the server may know more of it than a
    bucket's configuration can say, such as the account that a source is in.

    Args:
        current: the configuration that the server reports.
        wanted: see :func:`stream_config`.
        given: the fields of the bucket's configuration to change, ``None`` for all. With all, and with an
            empty set, the stream also gets what it lacks to keep objects.
    """
    before, after = bucket_config(current), bucket_config(wanted)
    changes = {
        key: wanted.get(key)
        for field, key in _STREAM_FIELDS.items()
        if (given is None or field in given) and getattr(before, field) != getattr(after, field)
    }
    if "sources" in changes:
        changes["sources"] = _merge_sources(_list(current, "sources"), _list(wanted, "sources")) or None
    mirror = _as_dict(changes.get("mirror", current.get("mirror")))
    if not given or "mirror" in changes:
        changes["retention"], changes["discard"] = wanted["retention"], wanted["discard"]
        changes["subjects"] = None if mirror else wanted["subjects"]
        if not mirror:
            changes["allow_rollup_hdrs"] = wanted["allow_rollup_hdrs"]
    if "mirror" in changes or (mirror and "allow_direct" in changes):
        direct = changes.get("allow_direct", current.get("allow_direct"))
        whole = mirror and not mirror.get("subject_transforms") and not mirror.get("filter_subject")
        changes["mirror_direct"] = True if direct and whole else None
    return changes


def _merge_sources(current: Sequence[object], wanted: Sequence[object]) -> list[object]:
    """Return the wanted sources; one that is there already stays as it is.

    A bucket may be there several times, with parts of its messages, or from several accounts. They read the
    same, so all of them stay if one does.
    """
    left = [(_decode_source(source), source) for source in current]
    names = [_decode_source(source) for source in wanted]
    merged = []
    for name, source in zip(names, wanted, strict=True):
        at = next((at for at, (there, _) in enumerate(left) if there == name), None)
        merged.append(source if at is None else left.pop(at)[1])
    return merged + [source for there, source in left if there in names]


def merge_config(current: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Return ``current`` with the changes of :func:`changes_of`; the server's own metadata stays."""
    merged = {**current, **changes}
    if "metadata" in changes:
        there = _as_dict(current.get("metadata"))
        own = {key: item for key, item in there.items() if key.startswith("_nats.")}
        merged["metadata"] = {**own, **_as_dict(changes["metadata"])} or None
    return {key: value for key, value in merged.items() if value is not None or key not in changes}


def config_matches(echoed: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """Return the names of the fields of ``wanted`` that the server dropped or changed, ``[]`` when none.

    Additions by the server (defaults, ``_nats.…`` metadata) and omitted empty values do not count.

    Args:
        echoed: the ``config`` in the server's response.
        wanted: what was asked for, see :func:`stream_config` and :func:`changes_of`;
            :data:`FIELD_MINIMUM_VERSION` says which server version first keeps a field.
    """
    return [key for key, value in wanted.items() if value is not None and not _kept(echoed.get(key), value)]


def _kept(echo: object, value: object) -> bool:
    if isinstance(value, Mapping):
        theirs = _as_dict(echo)
        return all(_kept(theirs.get(key), item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        theirs_list = echo if isinstance(echo, (list, tuple)) else ()
        if len(theirs_list) != len(value):
            return False
        if value and isinstance(value[0], Mapping):
            return all(map(_kept, theirs_list, value))
        return all(item in theirs_list for item in value)
    return echo == value or (not echo and not value)
