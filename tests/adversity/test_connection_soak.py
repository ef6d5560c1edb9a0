"""The long forms of rows A6 and A12: ``pytest -m soak tests/adversity``."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

import natsproto
from natsproto.errors import NatsError, RequestTimeoutError
from natsproto.server import LocalCluster, LocalServer
from support.calls import Calls
from support.waits import held

pytestmark = pytest.mark.soak

SECONDS = float(os.environ.get("NATSPROTO_SOAK_SECONDS", "300"))


@pytest.mark.parametrize("asked", [True, False])
async def test_a6_a_server_stopped_for_a_minute_with_default_options(
    server: LocalServer, asked: bool
) -> None:
    """Noticed within 2 s after a request timeout, else by PING within 3 intervals of 20 s."""
    async with (
        LocalServer(binary=server.binary.path, jetstream=False) as own,
        LocalServer(jetstream=False) as other,
    ):
        back = Calls()
        async with natsproto.connect([own.url, other.url], randomize=False, reconnected_cb=back) as nc:
            await nc.subscribe("a")
            await nc.flush()
            own.pause()
            try:
                start = time.monotonic()
                if asked:
                    with pytest.raises(RequestTimeoutError):
                        await nc.request("a", timeout=1)
                await back.until(1, timeout=70)
                assert time.monotonic() - start < (4 if asked else 60) + 5
                assert nc.connected_url == other.url
            finally:
                own.resume()


async def test_a12_rolling_restarts_of_three_nodes() -> None:
    """No zombie: after each restart a round trip works within seconds, and nothing is left running."""
    async with LocalCluster(3) as cluster:
        errors = Calls()
        async with natsproto.connect(cluster.urls, error_cb=errors, reconnect_wait_max=0.5) as nc:
            echo = await nc.subscribe("echo")

            async def serve() -> None:
                async for msg in echo:
                    await msg.respond(msg.data)

            serving = asyncio.create_task(serve())
            end = time.monotonic() + SECONDS
            counts = {"ok": 0, "failed": 0}

            async def load() -> None:
                while time.monotonic() < end:
                    try:
                        await nc.request("echo", b"x", timeout=2)
                        counts["ok"] += 1
                    except NatsError:
                        counts["failed"] += 1
                        await held(0.01)

            async def nemesis() -> None:
                turn = 0
                while time.monotonic() < end:
                    await asyncio.to_thread(cluster.servers[turn % 3].restart)
                    turn += 1
                    await nc.flush(10)

            await asyncio.gather(nemesis(), *(load() for _ in range(10)))
            assert (await nc.request("echo", b"end", timeout=5)).data == b"end"
            assert counts["ok"] > 10 * counts["failed"]
            await echo.unsubscribe()
            await serving
