"""Opening a transport: what is refused."""

from __future__ import annotations

import pytest

from natsproto.errors import ConfigError
from natsproto.transport import TransportKind, open_transport
from support.transports import Recorder


async def test_refused(kind: TransportKind) -> None:
    with pytest.raises(OSError):
        await open_transport(kind, Recorder(), "127.0.0.1", 1)


async def test_unknown_kind() -> None:
    with pytest.raises(ConfigError):
        await open_transport("pigeon", Recorder(), "127.0.0.1", 1)  # type: ignore[arg-type]
