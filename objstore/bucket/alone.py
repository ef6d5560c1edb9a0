"""Whether the configuration that goes back to a server is that of the bucket, and not of another one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from natsproto.errors import RequestTimeoutError
from natsproto.jetstream.api.answers import STREAM_INFO
from natsproto.jetstream.api.codec import loads
from natsproto.jetstream.api.models import StreamInfo

from ..errors import ForeignBucketError
from ..format.naming import stream_name
from .server import domain_of

if TYPE_CHECKING:
    from natsproto.jetstream.context import JetStreamContext

ALONE = 2.0
"""Seconds for which answers of other buckets of the name are waited for."""

MOST = 10_000
"""Messages that may come meanwhile: with more, nothing is certain."""


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
    inbox, answered = js.client.new_inbox(), False
    async with await js.client.subscribe(inbox, pending_msgs_limit=2 * MOST) as answers:
        await js.client.publish(js.subject(f"STREAM.INFO.{stream}").decode(), b"", reply=inbox)
        try:
            async with asyncio.timeout(ALONE):
                for _ in range(MOST):
                    answer = (await anext(answers)).data
                    if bytes(answer).startswith(STREAM_INFO):
                        document = loads(answer)
                        if "error" not in document:
                            _check(stream, StreamInfo.from_json(document), found, bucket)
                            answered = True
        except TimeoutError:
            if answered and not answers.dropped:
                return
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
