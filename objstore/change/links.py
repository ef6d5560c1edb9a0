"""Links: metas that point to another object or bucket and have no bytes of their own (ADR-20, "Links")."""

from __future__ import annotations

from dataclasses import replace

from natsproto.errors import NatsError

from ..bucket.bucket import Bucket
from ..commit.commit import Commit, Conflict, ConflictBackoff, lost_race
from ..commit.discard import remove_older
from ..errors import LinkError, ObjectAlreadyExists
from ..format.codec import MetaDecodeError, encode_meta
from ..format.models import ObjectInfo, ObjectLink, ObjectMeta, ObjectMetaOptions
from ..format.naming import check_bucket, new_nuid
from ..read.links import OtherBuckets


async def check_target(bucket: Bucket, link: ObjectLink, others: OtherBuckets | None = None) -> None:
    """Refuse a target that is missing, deleted or itself a link; for a bucket link check only the name.

    Raises:
        BucketNotFoundError, ObjectNotFoundError, ObjectDeletedError, LinkError: the target is refused; with
            ``others``, also because its bucket cannot be read.
    """
    check_bucket(link.bucket)
    if link.name is None:
        return
    try:
        _, target = await (others or OtherBuckets()).target(bucket, link, link.name, leader=True)
    except NatsError as exc:
        refused = isinstance(exc, LookupError | ValueError)
        if refused or others is None or not others.tolerates(exc, bucket, link.bucket):
            raise
        raise LinkError(
            f"{link.bucket}/{link.name} cannot be read: {exc}",
            bucket=bucket.name,
            target_bucket=link.bucket,
            target_name=link.name,
        ) from exc
    if target.is_link:
        raise LinkError(
            f"{link.bucket}/{link.name} is itself a link: link to its target instead",
            bucket=bucket.name,
            target_bucket=link.bucket,
            target_name=link.name,
        )


async def add_link(
    bucket: Bucket, meta: ObjectMeta, link: ObjectLink, others: OtherBuckets | None = None
) -> ObjectInfo:
    """Store a link. It may replace nothing, a delete marker or another link; never a live object.

    Args:
        others: the buckets that the links of one command lead to, see there.

    Raises:
        BucketNotFoundError, ObjectNotFoundError, LinkError: the target cannot be linked to.
        ObjectAlreadyExists: a live object has the name.
        RevisionConflictError: lost against other writers again and again.
    """
    name = meta.name
    template = bucket.template(
        name, (meta.description, meta.filename, meta.headers, meta.metadata), ObjectMetaOptions(link)
    )
    await check_target(bucket, link, others)
    patience = ConflictBackoff(bucket)
    while True:
        lookup = bucket.start_locating(name)  # under every client's subject: it is one object
        try:
            subject, message = await lookup.wait()
            current = None if message is None else bucket.decode(message)
        except MetaDecodeError as exc:
            raise ObjectAlreadyExists(
                f"{name!r} in bucket {bucket.name!r} has a meta message that cannot be read; delete it first",
                bucket=bucket.name,
                name=name,
            ) from exc
        if current is not None and not current.deleted and not current.is_link:
            raise ObjectAlreadyExists(
                f"{name!r} in bucket {bucket.name!r} is an object: a link never replaces one",
                bucket=bucket.name,
                name=name,
                revision=current.revision,
            )
        await remove_older(bucket, lookup, current)
        info = replace(template, nuid=new_nuid(name))
        expected = 0 if current is None else current.revision
        try:
            commit = Commit(
                bucket,
                name,
                encode_meta(info),
                expected=expected,
                nuid=info.nuid,
                subject=subject,
                owns=info,
            )
            revision = await commit.run()
        except Conflict as conflict:
            if not await patience.again():
                raise lost_race(bucket, name, expected, conflict) from None
            continue
        return replace(info, revision=revision)
