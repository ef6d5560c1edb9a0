"""B10, in the middle of a commit: rights are taken away, and the connection lives on.

The server's word is no answer to the commit: it names a subject, and nothing is removed because of it unless
it can have meant nothing else.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.errors import PermissionsViolationError
from natsproto.server import LocalServer
from natsproto.testing import HOLD, FaultProxy
from natsproto.wire import Msg, Pub
from objstore import ObjectMeta, ObjectStore, OutcomeUnknownError
from support.fake_session import until
from support.objects import assert_exact, chunk_counts, meta_subject, pattern

OLD, FIRST, SECOND = (pattern(size, size) for size in (300, 900, 1000))
ALL = 'publish: ">"'
NO_METAS = 'publish: { deny: "$O.b.M.>" }'
NO_ANSWERS = 'subscribe: { deny: "_INBOX.>" }'


def configuration(rights: str) -> str:
    user = f"{{ user: few, password: p, permissions: {{ {rights} }} }}"
    return f"authorization {{ users: [ {{ user: all, password: p }}, {user} ] }}"


class Guarded:
    """A server whose user ``few`` loses rights, and that user's connection."""

    def __init__(
        self, server: LocalServer, owned: ObjectStore, proxy: FaultProxy, store: ObjectStore
    ) -> None:
        self.server = server
        self.owned = owned
        self.proxy = proxy
        self.store = store
        self.held = asyncio.Event()

    def hold_answer(self) -> None:
        """The next answer to a meta of ``n`` is late."""
        subject, reply = meta_subject(self.owned, "n").encode(), b""

        def up(event: Any, raw: bytes) -> Any:
            nonlocal reply
            if isinstance(event, Pub) and event.subject == subject and not reply:
                reply = event.reply or b""

        def down(event: Any, raw: bytes) -> Any:
            if isinstance(event, Msg) and reply and event.subject == reply:
                self.held.set()
                return HOLD
            return None

        self.proxy.to_server, self.proxy.to_client = up, down

    async def let(self, rights: str) -> None:
        """Give the user other rights."""
        path = Path(self.server._private, "server.conf")
        path.write_text(path.read_text().replace(configuration(ALL), configuration(rights)))
        before = self.server.log(1000).count("Reloaded server configuration")
        self.server.signal(signal.SIGHUP)
        await until(lambda: self.server.log(1000).count("Reloaded server configuration") > before)


@pytest.fixture
async def guarded(server: LocalServer) -> AsyncIterator[Guarded]:
    async with (
        LocalServer(binary=server.binary.path, config=configuration(ALL)) as own,
        natsproto.connect(own.url, user="all", password="p") as owner,
        FaultProxy(own.url) as proxy,
        natsproto.connect(proxy.url, user="few", password="p") as client,
    ):
        owned = await owner.jetstream().create_object_store(bucket="b")
        await owned.put("n", OLD, chunk_size=200)
        store = await client.jetstream().object_store("b")
        store._bucket.retry_budget = 3.0  # so long is a commit in doubt tried again
        yield Guarded(own, owned, proxy, store)
        assert proxy.errors == []


CALLS: list[Callable[[ObjectStore], Any]] = [
    lambda store: store.put("n", SECOND, chunk_size=200),
    lambda store: store.update_meta("n", ObjectMeta("n", "changed")),
    lambda store: store.delete("n"),
]


@pytest.mark.parametrize("second", CALLS, ids=["put", "update", "delete"])
async def test_another_one_is_refused(guarded: Guarded, second: Callable[[ObjectStore], Any]) -> None:
    """Two tasks change a name. What the server refuses is the second one's; the first one is stored."""
    store = guarded.store
    guarded.hold_answer()
    first = asyncio.ensure_future(store.put("n", FIRST, chunk_size=200))
    await guarded.held.wait()
    await guarded.let(NO_METAS)
    with pytest.raises(OutcomeUnknownError):
        await second(store)
    assert (await first).size == len(FIRST)
    assert await guarded.owned.get("n") == FIRST


async def test_where_the_answer_should_have_come_to(guarded: Guarded) -> None:
    """The right to the inbox is lost: that is no refusal of what was sent."""
    guarded.hold_answer()
    putting = asyncio.ensure_future(guarded.store.put("n", FIRST, chunk_size=200))
    await guarded.held.wait()
    await guarded.let(NO_ANSWERS)
    with pytest.raises(OutcomeUnknownError):
        await putting
    assert await guarded.owned.get("n") == FIRST


async def test_all_of_them_are_refused(guarded: Guarded) -> None:
    """As many refusals as commits: each of them is certain, at once, and nothing is left."""
    await guarded.let(NO_METAS)
    guarded.store._bucket.retry_budget = 60.0
    calls = [guarded.store.put("n", data, chunk_size=200) for data in (FIRST, SECOND, FIRST)]
    async with asyncio.timeout(20):
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends] == [PermissionsViolationError] * 3
    assert await guarded.owned.get("n") == OLD
    assert len(await chunk_counts(guarded.owned)) == 1
    await assert_exact(guarded.owned)
