"""Whether the configuration that goes back to a server is that of the bucket, and not of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from natsproto.errors import RequestTimeoutError
from natsproto.jetstream.all_answers import all_answers
from natsproto.jetstream.api.models import StreamInfo

from ..errors import ForeignBucketError
from ..format.naming import stream_name
from .server import domain_of

if TYPE_CHECKING:
    from natsproto.jetstream.context import JetStreamContext


async def check_alone(js: JetStreamContext, bucket: str, found: StreamInfo) -> None:
    """Make sure that no other bucket of the name answers.

    Where the domain is not known, whoever sees a request can have another API answer it, too: one that is
    imported, or that of another domain. Nothing in its answers tells the two apart; but both come.

    Args:
        js: the context.
        bucket: the bucket's name.
        found: what was answered before.

    Raises:
        ForeignBucketError: two buckets have answered.
        RequestTimeoutError: none has answered, or so much has come that this is not known.
    """
    if js.answers_are_known:
        return
    stream = stream_name(bucket)

    def take(document: dict[str, object]) -> None:
        _check(stream, StreamInfo.from_json(document), found, bucket)

    if not await all_answers(js, f"STREAM.INFO.{stream}", take):
        raise RequestTimeoutError(
            f"whether another bucket {bucket!r} answers, too, is not known: nothing was changed"
        )


def _check(stream: str, info: StreamInfo, found: StreamInfo, bucket: str) -> None:
    if info.config.name == stream and info.created != found.created:
        raise ForeignBucketError(
            f"two buckets {bucket!r} have answered: nothing was changed; open this one with "
            "jetstream(domain=…), or give them different names",
            bucket=bucket,
            stream=stream,
            domain=domain_of(info),
            expected_stream=stream,
            expected_domain=domain_of(found),
        )
