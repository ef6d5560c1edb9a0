"""More answers to one API request than the first: others can have another API answer it, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..aio.handlers import ReplySlot
from ..errors import PermissionsViolationError, RemoteProtocolError, RequestTimeoutError
from .api.answers import answer_begins
from .api.codec import loads
from .api.errors import api_error

if TYPE_CHECKING:
    from ..wire import Msg as WireMsg
    from .requests import ApiRequests

WAIT = 2.0
"""Seconds for which answers are waited for."""

MOST = 10_000
"""Messages that may come meanwhile: with more, nothing is certain."""


class _Refusal(ReplySlot):
    """Ends the wait for the answers to a request that was refused."""

    __slots__ = ("_wait", "error")

    def __init__(self, subject: bytes, wait: asyncio.Timeout) -> None:
        super().__init__(subject)
        self._wait = wait
        self.error: PermissionsViolationError | None = None

    def on_lost(self, exc: BaseException) -> None:
        if isinstance(exc, PermissionsViolationError) and exc.operation == "publish":
            self.error = exc
            self._wait.reschedule(asyncio.get_running_loop().time())


async def all_answers(js: ApiRequests, suffix: str, take: Callable[[dict[str, object]], None]) -> bool:
    """Pass every answer that comes within :data:`WAIT` seconds to a callback, but no errors.

    Args:
        js: the API.
        suffix: the request, which has no document.
        take: called with each; what it raises ends the call.

    Returns:
        False when there was none, or so much has come that some may have been missed.

    Raises:
        PermissionsViolationError: the request was refused.
    """
    inbox, begins, answered = js.client.new_inbox(), answer_begins(suffix), False
    mux, wait = js.client.connection.mux, asyncio.timeout(WAIT)
    refusal = _Refusal(js.subject(suffix), wait)
    async with await js.client.subscribe(inbox, pending_msgs_limit=2 * MOST) as answers:
        mux.open(refusal)
        try:
            async with wait:
                await js.client.publish(refusal.subject.decode(), b"", reply=inbox)
                for _ in range(MOST):
                    answer = (await anext(answers)).data
                    if bytes(answer).startswith(begins):
                        document = loads(answer)
                        if "error" not in document:
                            take(document)
                            answered = True
        except TimeoutError:
            if refusal.error is not None:
                raise refusal.error from None
            return answered and not answers.dropped
        finally:
            mux.close(refusal)
    return False


async def own_answer(
    js: ApiRequests,
    suffix: str,
    payload: bytes,
    fits: Callable[[dict[str, object]], bool],
    limit: int | None = None,
) -> dict[str, object] | None:
    """Return the first answer that fits, however many others come before it.

    Args:
        js: the API.
        suffix, payload: the request.
        fits: whether an answer is the right one.
        limit: bytes of an answer, instead of 4 MiB.

    Returns:
        ``None`` when none came within :data:`WAIT` seconds.

    Raises:
        APIError: the request was refused.
    """
    own: dict[str, object] | None = None

    def counts(msg: WireMsg) -> bool:
        nonlocal own
        try:
            answer = loads(msg.payload, limit)
        except RemoteProtocolError:
            return False
        if "error" in answer or fits(answer):
            own = answer
        return own is not None

    begins = answer_begins(suffix)
    try:
        await js.client.request_frame(js.subject(suffix), payload, b"", WAIT, begins=begins, counts=counts)
    except RequestTimeoutError:
        return None
    if own is not None and "error" in own:
        raise api_error(own["error"])
    return own
