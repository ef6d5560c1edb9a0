"""Streams: create, change, list, purge, delete."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from sys import getsizeof
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from .._values import brief, seconds
from ..errors import RemoteProtocolError, StaleConnectionError
from ..subjects import MAX_LINE, has_wildcards
from .api.codec import is_number, number
from .api.errors import StreamConfigError, check_name, check_new_name
from .api.features import check_kept, refused
from .api.models import StreamConfig, StreamInfo
from .api.paging import Incomplete, memory_of
from .requests import ApiRequests, listed

if TYPE_CHECKING:
    from ..aio.connection import Connection

MAX_PENDING = 64 * 1024 * 1024
"""Bytes that a server keeps for a client by default; it closes the connection instead of sending more."""

ESCAPED = 6
"""How many times as long JSON may write a subject, at most: ``\\u0001``."""

CUT_PAUSE = 10.0
"""Seconds before a list of subjects is asked for again after the connection was lost; then twice as long."""

MAX_CUT_PAUSE = 600.0
"""The longest of these pauses, in seconds."""


# By connection: each context is cheap to create. Pauses, and when they end, by API prefix, stream and filter.
_cut_lists: WeakKeyDictionary[Connection, dict[tuple[str, str, str], tuple[float, float]]] = (
    WeakKeyDictionary()
)


def _may_be_too_large(info: StreamInfo) -> bool:
    """Whether a server may be unable to send the list of a stream's subjects."""
    return ESCAPED * min(info.bytes, MAX_LINE * info.num_subjects) >= MAX_PENDING


class StreamManagement(ApiRequests):
    """The part of :class:`natsproto.JetStreamContext` that manages streams."""

    async def create_stream(self, config: StreamConfig | Mapping[str, object]) -> StreamInfo:
        """Create a stream; succeeds, too, if it exists with the same configuration.

        Raises:
            StreamNameInUseError: it exists with another configuration.
            StreamConfigError: the server refuses the configuration.
            UnsupportedFeatureError: the server is too old for a field of a :class:`StreamConfig`. If it has
                dropped the field, the stream stays as the server created it: others may already use it.
        """
        return await self._apply_stream("CREATE", config)

    async def update_stream(self, config: StreamConfig | Mapping[str, object]) -> StreamInfo:
        """Replace a stream's configuration; start from the one that :meth:`stream_info` returned.

        Raises:
            StreamConfigError: the server refuses the configuration, or the change.
            UnsupportedFeatureError: the server is too old for a field of a :class:`StreamConfig`.
        """
        return await self._apply_stream("UPDATE", config)

    async def _apply_stream(self, verb: str, config: StreamConfig | Mapping[str, object]) -> StreamInfo:
        document = config.to_json() if isinstance(config, StreamConfig) else dict(config)
        check = check_new_name if verb == "CREATE" else check_name
        name = check("stream", document.get("name"))
        try:
            answer = await self.request(f"STREAM.{verb}.{name}", document)
        except StreamConfigError as exc:
            if isinstance(config, StreamConfig):
                raise refused(document, exc) from None
            raise
        info = StreamInfo.from_json(answer)
        if isinstance(config, StreamConfig):
            check_kept("stream", document, answer)
        return info

    async def stream_info(self, name: str, *, timeout: float | None = None) -> StreamInfo:
        """Configuration and state.

        Args:
            timeout: in seconds, instead of the context's.

        Raises:
            StreamNotFoundError: no such stream.
        """
        return StreamInfo.from_json(
            await self.request(f"STREAM.INFO.{check_name('stream', name)}", timeout=timeout)
        )

    async def stream_subjects(self, name: str, subjects_filter: str = ">") -> dict[str, int]:
        """Subjects that have messages, with their counts: one round trip per 100 000 subjects.

        With ``">"`` it is certain that none is missing: the answer has the number of all subjects, too. An
        answer to another filter may be one that somebody else has asked for, with our inbox.

        Servers store messages whose very subject is a wildcard, such as ``orders.>``. Whoever uses such a
        subject as a filter, as in :meth:`purge_stream`, means all that it matches.

        Raises:
            RemoteProtocolError: there are too many for memory (about two million). Or the connection was lost
                the last two times, and the list may be too large to send: then it is asked for again after
                10 s, and after twice as long each time, up to 10 minutes.
            RequestTimeoutError: no list had them all: subjects go all the time, or it is another one.
            StaleConnectionError: the connection was lost. A server cuts it each time if the list is larger
                than its ``max_pending`` (64 MiB), as with many subjects of kilobytes: pass a filter.
        """
        key, connection = (self.prefix, name, subjects_filter), self.client.connection
        loop, cut = connection.loop, _cut_lists.setdefault(connection, {})
        pause, until = cut.get(key, (0.0, 0.0))
        if loop.time() < until and _may_be_too_large(await self.stream_info(name)):
            raise RemoteProtocolError(
                f"the subjects of stream {brief(name)} may be more than a server can send: it closed the "
                f"connection; pass a filter, or wait for {seconds(max(1, ceil(until - loop.time())))} s"
            )
        try:
            found = await self._listed_subjects(name, subjects_filter)
        except StaleConnectionError:
            if has_wildcards(subjects_filter):
                again = key in cut  # once may be an accident
                pause = min(2 * pause or CUT_PAUSE, MAX_CUT_PAUSE) if again else 0.0
                cut[key] = (pause, loop.time() + pause)
            raise
        cut.pop(key, None)
        return found

    async def _listed_subjects(self, name: str, subjects_filter: str) -> dict[str, int]:
        """:meth:`stream_subjects` from the server."""

        def subjects(answer: dict[str, object], asked: int) -> tuple[dict[str, int], int, int]:
            state = answer.get("state")
            page = state.get("subjects") if isinstance(state, dict) else None
            if subjects_filter == ">":
                there = state.get("num_subjects", 0) if isinstance(state, dict) else None  # 0 is left out
                total = answer.get("total")
                size = len(page) if isinstance(page, dict) else 0
                if not (
                    is_number(total)
                    and is_number(there)
                    and total >= there
                    and answer.get("offset", 0) == asked
                    and (size or total <= asked)
                ):
                    raise Incomplete
            if not isinstance(page, dict):
                return {}, 0, 0
            if number(answer, "offset") > asked:
                raise Incomplete  # a later page
            if not all(map(is_number, page.values())):
                raise RemoteProtocolError("an API answer counts subjects with something other than numbers")
            count, due = len(page), min(number(answer, "limit"), number(answer, "total") - asked)
            if count < due and any("\ufffd" in each for each in page):
                count = due  # bytes that are no text are all written alike: one entry for several subjects
            return page, count, sum(map(getsizeof, page))

        suffix = f"STREAM.INFO.{check_name('stream', name)}"
        document = {"subjects_filter": subjects_filter}
        return await self._pages(f"the subjects of stream {name!r}", suffix, document, subjects)

    async def delete_stream(self, name: str) -> None:
        """Delete a stream with all its messages and consumers."""
        await self.request(f"STREAM.DELETE.{check_name('stream', name)}")

    async def purge_stream(
        self, name: str, *, subject: str | None = None, seq: int | None = None, keep: int | None = None
    ) -> int:
        """Remove messages; return how many.

        Args:
            subject: only those whose subject matches. One that a publisher has chosen may be a wildcard.
            seq: only those below this sequence.
            keep: how many of the newest to keep.
        """
        document: dict[str, object] = {}
        if subject is not None:
            document["filter"] = subject
        if seq is not None:
            document["seq"] = seq
        if keep is not None:
            document["keep"] = keep
        answer = await self.request(f"STREAM.PURGE.{check_name('stream', name)}", document)
        return number(answer, "purged")

    async def stream_names(self, subject: str | None = None) -> list[str]:
        """Names of all streams (1024 per round trip), or of those that listen on ``subject``."""
        document = {} if subject is None else {"subject": subject}
        return await self._names("the names of streams", "STREAM.NAMES", "streams", document)

    async def streams(self, subject: str | None = None) -> list[StreamInfo]:
        """Configuration and state of all streams (256 per round trip)."""

        def of_page(answer: dict[str, object], asked: int) -> tuple[dict[str, StreamInfo], int, int]:
            page = listed(answer, "streams")
            found = [StreamInfo.from_json(item) for item in page if isinstance(item, dict)]
            infos = {info.config.name: info for info in found}
            # In a cluster, streams whose servers have not answered take places on the page, too.
            missing = [
                name for name in listed(answer, "missing") if isinstance(name, str) and name not in infos
            ]
            return infos, len(page) + len(missing), memory_of(page)

        document = {} if subject is None else {"subject": subject}
        return list((await self._pages("the streams", "STREAM.LIST", document, of_page)).values())
