"""Where attempts to connect end without a network: a real client, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from natsproto.aio import reconnect
from natsproto.aio.client import Client
from natsproto.aio.options import Options
from support.fake_session import FakeSession
from support.simulation import passing


class Network:
    """Each attempt ends in a session, or in the error that ``outcome`` returns.

    Attributes:
        tried: the URL of each attempt.
        waits: seconds an attempt takes.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        network = self
        self.outcome: Callable[[], Exception | None] = lambda: None
        self.tried: list[str] = []
        self.waits = 0.0
        self.info: dict[str, Any] = {"server_name": "n1", "version": "2.15.1"}

        class Attempt(FakeSession):
            nonce_in_clear = False

            def __init__(self, connection: Any, server: Any) -> None:
                super().__init__(connection)
                self.server = server
                self.info.update(network.info)

            def fail(self, exc: BaseException) -> None:
                if self.lost is None:
                    super().fail(exc)

            async def establish(self) -> None:
                network.tried.append(self.server.url)
                if network.waits:
                    await passing(network.waits)
                error = network.outcome()
                if error is not None:
                    raise error

        monkeypatch.setattr(reconnect, "Session", Attempt)

    @property
    def attempts(self) -> int:
        return len(self.tried)

    async def client(self, url: str | list[str] = "nats://ada:CANARY@h:1", **options: Any) -> Client:
        """An opened client."""
        client = Client(Options(url, **options))
        await client.connection.open()
        return client


def lose(client: Client, exc: BaseException) -> None:
    """End the session of a client."""
    session: Any = client.connection.session
    session.fail(exc)


async def until(condition: Callable[[], bool]) -> None:
    """Let virtual time pass until ``condition()`` holds."""
    while not condition():
        await passing(0.01)
