"""Follow links (ADR-20, "Links"), within the limits that a read sets."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Literal, TypeVar, get_args

from natsproto._values import brief
from natsproto.errors import ConnectionClosedError, NatsError, RemoteProtocolError
from natsproto.jetstream.api.errors import retryable

from ..bucket.binding import bind_other
from ..bucket.bucket import Bucket
from ..bucket.shared import Shared
from ..errors import BadBucketError, BucketNotFoundError, LinkError
from ..format.models import ObjectInfo, ObjectLink
from .lookup import live_info, newest_info

MAX_LINKS = 8
"""Links in a row that a read follows; creating a link to a link is refused."""


KEPT = 1.0
"""Seconds for which a bucket that a link leads to is kept: to look it up may take a megabyte.

Not longer: it may be deleted and created anew, with another configuration."""

MOST_KEPT = 16
"""Buckets that are kept for the links of one; each may have a configuration of a megabyte."""

MOST_WRONG = 1000
"""Names of buckets that cannot be read, which are kept likewise."""

T = TypeVar("T")


FollowLinks = Literal["all", "same-bucket", "none"]
"""Which links a read follows. Anyone who may write to a bucket decides where its links lead."""

_ALLOWED = get_args(FollowLinks)


def check_follow_links(follow: FollowLinks) -> FollowLinks:
    """Return the value after checking it.

    Raises:
        ValueError: the value is not allowed.
    """
    if follow not in _ALLOWED:
        raise ValueError(f"follow_links is one of {', '.join(map(repr, _ALLOWED))}, not {follow!r}")
    return follow


class OtherBuckets:
    """The buckets that the links of one list lead to.

    Each is looked up once: the answer can have a megabyte, and many links may lead to it. One that cannot be
    read, since its servers are away, costs the list that wait once, and no more than that.
    """

    def __init__(self) -> None:
        self._found: dict[str, Bucket | NatsError] = {}
        self._away: dict[str, NatsError] = {}

    async def find(self, asked: Bucket, name: str) -> Bucket:
        """Return another bucket, or the one whose link was followed.

        Raises:
            NatsError: as for :func:`~objstore.bucket.binding.bind`; or a link to it could not be followed.
        """
        if name == asked.name:
            return asked
        if name in self._away:
            raise self._away[name].with_traceback(None)
        if name not in self._found:
            try:
                self._found[name] = await _bound(asked, name)
            except NatsError as exc:
                if retryable(exc) or isinstance(exc, BucketNotFoundError):
                    raise
                self._found[name] = exc
        found = self._found[name]
        if isinstance(found, NatsError):
            raise found.with_traceback(None)
        return found

    async def target(
        self, asked: Bucket, link: ObjectLink, name: str, *, leader: bool = False
    ) -> tuple[Bucket, ObjectInfo]:
        """Return the object of that name in the bucket that a link leads to, and the bucket.

        Raises:
            LookupError, ValueError: there is none.
            NatsError: as for :meth:`find`; or it could not be read.
        """
        for again in (True, False):
            bucket = await self.find(asked, link.bucket)
            bucket.check_name(name)
            try:
                return bucket, await live_info(bucket, name, leader=leader)
            except BucketNotFoundError:
                if bucket is asked or not again:
                    raise
                self._found.pop(link.bucket, None)  # it may have been created anew since
                asked.remembered(_Kept).buckets.pop(link.bucket, None)
        raise AssertionError

    def tolerates(self, exc: NatsError, asked: Bucket, name: str) -> bool:
        """Whether an error is one of that other bucket alone."""
        if name == asked.name or asked.connection.session is None or isinstance(exc, ConnectionClosedError):
            return False
        if retryable(exc):
            self._away[name] = exc
        return True


class _Kept:
    """The buckets that links of one have led to, or what is wrong with them, each with its time."""

    def __init__(self, bucket: Bucket) -> None:  # Bucket.remembered passes itself
        self.buckets: dict[str, tuple[Bucket, float]] = {}
        self.wrong: dict[str, tuple[NatsError, float]] = {}
        self.looking: Shared[Bucket | NatsError] = Shared()


async def _bound(asked: Bucket, name: str) -> Bucket:
    """Bind another bucket for a link, or return it as it was a moment ago: many links are read one by one."""
    kept, loop = asked.remembered(_Kept), asked.connection.loop

    async def look_up() -> Bucket | NatsError:
        try:
            bucket = await bind_other(asked, name)
        except (
            BadBucketError,
            RemoteProtocolError,
        ) as exc:  # the answer may have been as large, or too large
            _keep(kept.wrong, name, exc, loop.time() + KEPT, MOST_WRONG)
            return exc
        _keep(kept.buckets, name, bucket, loop.time() + KEPT, MOST_KEPT)
        return bucket

    found, until = kept.buckets.get(name) or kept.wrong.get(name) or (None, 0.0)
    if found is None or loop.time() >= until:
        found = await kept.looking.get(name, look_up, asked.retry_budget)
    if isinstance(found, NatsError):
        raise found.with_traceback(None)
    if found.retry_budget != asked.retry_budget:  # that of another call
        found = copy(found)
        found.retry_budget = asked.retry_budget
    return found


def _keep(kept: dict[str, tuple[T, float]], name: str, found: T, until: float, most: int) -> None:
    kept.pop(name, None)
    if len(kept) >= most:
        del kept[next(iter(kept))]
    kept[name] = found, until


async def resolve(
    bucket: Bucket,
    name: str,
    follow: FollowLinks = "all",
    *,
    show_deleted: bool = False,
    others: OtherBuckets | None = None,
) -> tuple[Bucket, ObjectInfo]:
    """Follow links from a name; return the object and its bucket.

    Args:
        follow: the links to follow; others are errors.
        others: of the list that this is a part of; see there.
        show_deleted: return the delete marker of a deleted object or link, as an object without bytes. What
            a link leads to must exist.

    Raises:
        ObjectNotFoundError, ObjectDeletedError: the name itself has no live object.
        LinkError: a link leads to a bucket, nowhere, in a circle, too far, or where ``follow`` forbids; with
            ``others``, also to a bucket that cannot be read.
    """
    if show_deleted:
        info = await newest_info(bucket, name)
        if info.deleted:  # whatever another client's marker says of its chunks, they are gone
            return bucket, replace(info, size=0, chunks=0)
    else:
        info = await live_info(bucket, name)
    if not info.is_link:
        return bucket, info
    first = info
    seen = {(bucket.name, info.name)}
    asked, known = bucket, others or OtherBuckets()
    while info.is_link:
        assert info.options is not None
        link = info.options.link
        assert link is not None

        def broken(why: str, link_bucket: str = link.bucket, link_name: str | None = link.name) -> LinkError:
            return LinkError(
                f"link {first.name!r} in bucket {first.bucket!r} {why}",
                bucket=first.bucket,
                name=first.name,
                target_bucket=link_bucket,
                target_name=link_name,
            )

        if link.name is None:
            raise broken(f"is a link to the bucket {brief(link.bucket)}: open that bucket instead")
        if follow == "none" or (follow == "same-bucket" and link.bucket != first.bucket):
            raise broken(f"leads to {brief(link.target)}, and follow_links={follow!r} does not allow that")
        if (link.bucket, link.name) in seen:
            raise broken("leads in a circle")
        if len(seen) > MAX_LINKS:
            raise broken(f"leads through more than {MAX_LINKS} links")
        seen.add((link.bucket, link.name))
        try:
            bucket, info = await known.target(asked, link, link.name)
        except (LookupError, ValueError) as exc:
            raise broken(f"leads to {brief(link.target)}, which does not exist: {exc}") from exc
        except NatsError as exc:
            if others is None or not others.tolerates(exc, asked, link.bucket):
                raise
            raise broken(f"leads to {brief(link.target)}, which cannot be read: {exc}") from exc
    return bucket, info
