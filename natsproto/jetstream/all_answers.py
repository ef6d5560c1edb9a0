"""All answers to one API request, where nothing tells two APIs apart: others can have both answer it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from .api.answers import answer_begins
from .api.codec import loads

if TYPE_CHECKING:
    from .requests import ApiRequests

WAIT = 2.0
"""Seconds for which answers are waited for."""

MOST = 10_000
"""Messages that may come meanwhile: with more, nothing is certain."""


async def all_answers(js: ApiRequests, suffix: str, take: Callable[[dict[str, object]], None]) -> bool:
    """Pass every answer that comes within :data:`WAIT` seconds to a callback, but no errors.

    Args:
        js: the API.
        suffix: the request, which has no document.
        take: called with each; what it raises ends the call.

    Returns:
        False when there was none, or so much has come that some may have been missed.
    """
    inbox, begins, answered = js.client.new_inbox(), answer_begins(suffix), False
    async with await js.client.subscribe(inbox, pending_msgs_limit=2 * MOST) as answers:
        await js.client.publish(js.subject(suffix).decode(), b"", reply=inbox)
        try:
            async with asyncio.timeout(WAIT):
                for _ in range(MOST):
                    answer = (await anext(answers)).data
                    if bytes(answer).startswith(begins):
                        document = loads(answer)
                        if "error" not in document:
                            take(document)
                            answered = True
        except TimeoutError:
            return answered and not answers.dropped
    return False
