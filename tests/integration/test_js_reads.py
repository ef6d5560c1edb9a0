"""Messages by time, and the newest of each subject page by page, on real servers of both ends."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from natsproto.errors import UnsupportedFeatureError
from natsproto.jetstream.api.errors import MessageNotFoundError
from natsproto.jetstream.api.models import StoredMessage
from natsproto.jetstream.context import JetStreamContext

BEFORE = datetime(2020, 1, 1, tzinfo=UTC)
AFTER = datetime(2100, 1, 1, tzinfo=UTC)


class Filled(NamedTuple):
    """Subjects ``<name>.0`` to ``.4``, ten messages, then four more from ``middle`` on."""

    name: str
    middle: datetime


@pytest.fixture
async def filled(js: JetStreamContext) -> AsyncIterator[Filled]:
    name = "r-" + uuid.uuid4().hex[:12]
    await js.create_stream(
        {"name": name, "subjects": [f"{name}.>"], "storage": "memory", "allow_direct": True}
    )
    for n in range(14):
        await js.publish(f"{name}.{n % 5}", b"%d" % n)
    yield Filled(name, (await js.get_message(name, seq=11)).time)
    await js.delete_stream(name)


def is_new(js: JetStreamContext) -> bool:
    return "api_lvl" in js.client.server_info


async def seqs(messages: AsyncGenerator[StoredMessage, None]) -> list[int]:
    return [message.seq async for message in messages]


async def test_one_message_by_time(js: JetStreamContext, filled: Filled) -> None:
    name = filled.name
    for get in (js.get_message, js.direct_get):
        assert (await get(name, start_time=BEFORE)).seq == 1
        if not is_new(js):
            for time in (filled.middle, AFTER):
                with pytest.raises(UnsupportedFeatureError):
                    await get(name, start_time=time)
            continue
        assert (await get(name, start_time=filled.middle)).seq in (10, 11)  # it has lost its nanoseconds
        found = await get(name, start_time=filled.middle, next_by_subject=f"{name}.2")
        assert found.seq == 13
        with pytest.raises(MessageNotFoundError):
            await get(name, start_time=AFTER)


async def test_a_batch_by_time(js: JetStreamContext, filled: Filled) -> None:
    name = filled.name
    if not is_new(js):
        assert await seqs(js.get_batch(name, start_time=BEFORE)) == [1]
        with pytest.raises(UnsupportedFeatureError):
            await anext(js.get_batch(name, start_time=filled.middle))
        return
    assert await seqs(js.get_batch(name, start_time=BEFORE, batch=3)) == [1, 2, 3]
    assert (await seqs(js.get_batch(name, start_time=filled.middle)))[-4:] == [11, 12, 13, 14]
    assert await seqs(js.get_batch(name, subject=f"{name}.2", start_time=filled.middle)) == [13]
    with pytest.raises(MessageNotFoundError):
        await anext(js.get_batch(name, start_time=AFTER))


async def test_newest_messages(js: JetStreamContext, filled: Filled) -> None:
    name, everything = filled.name, [f"{filled.name}.*"]
    if not is_new(js):
        for options in ({"seq": 12}, {"up_to_time": AFTER}):
            with pytest.raises(UnsupportedFeatureError):
                await anext(js.get_last_messages(name, everything, **options))  # type: ignore[arg-type]
        return
    for max_bytes in (1, 40, 1 << 20):  # a page per message, several, one
        for options, found in (
            ({}, [10, 11, 12, 13, 14]),
            ({"batch": 2}, [10, 11]),
            ({"seq": 12}, [12, 13, 14]),
            ({"seq": 15}, []),
            ({"up_to_seq": 8}, [4, 5, 6, 7, 8]),
            ({"up_to_seq": 8, "seq": 7}, [7, 8]),
            ({"up_to_time": AFTER}, [10, 11, 12, 13, 14]),
        ):
            messages = js.get_last_messages(name, everything, max_bytes=max_bytes, **options)  # type: ignore[arg-type]
            assert await seqs(messages) == found
        until = filled.middle + timedelta(microseconds=1)
        (last,) = (await seqs(js.get_last_messages(name, everything, up_to_time=until, max_bytes=max_bytes)))[
            -1:
        ]
        assert last == 11
    with pytest.raises(MessageNotFoundError):
        await anext(js.get_last_messages(name, everything, up_to_time=BEFORE))


async def test_pages_are_of_one_moment(js: JetStreamContext, filled: Filled) -> None:
    """What is stored while they are read is not among them."""
    if not is_new(js):
        return
    found = []
    async for message in js.get_last_messages(filled.name, [f"{filled.name}.*"], max_bytes=1):
        found.append(message.seq)
        await js.publish(f"{filled.name}.new", b"x")
        await js.publish(f"{filled.name}.4", b"x")
    assert found == [10, 11, 12, 13, 14]
