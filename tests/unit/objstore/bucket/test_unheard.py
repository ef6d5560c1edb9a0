"""Ways to read of which not all messages come: when they are left out, and for how long."""

from __future__ import annotations

import pytest

from objstore.bucket.binding import bind
from objstore.bucket.unheard import LONE, LONGEST, UnheardBatches, UnheardConsumers
from objstore.bucket.ways import REFUSED_FOR
from support.clock import Clock
from support.memory_server import MemoryServer


async def test_it_is_left_out_for_longer_each_time(server: MemoryServer) -> None:
    await server.bucket()
    bucket = await bind(server.js, "b")
    way, clock = bucket.remembered(UnheardConsumers), Clock()
    assert not way.now
    for seconds in (
        REFUSED_FOR,
        2 * REFUSED_FOR,
        4 * REFUSED_FOR,
        8 * REFUSED_FOR,
        16 * REFUSED_FOR,
        LONGEST,
    ):
        way.note()
        clock.forward(seconds - 1)
        assert way.now
        clock.forward(2)
        assert not way.now
    assert bucket.can_batch, "the other way is tried"


@pytest.mark.parametrize(
    ("came", "left_out"),
    [([1] * LONE, True), ([1], False), ([1, 0, 1], False), ([1, 2, 1], False), ([0, 0], False)],
)
async def test_batches_of_which_one_message_comes(
    server: MemoryServer, came: list[int], left_out: bool
) -> None:
    await server.bucket()
    bucket = await bind(server.js, "b")
    for messages in came:
        bucket.remembered(UnheardBatches).note_came(messages)
    assert bucket.can_batch != left_out
