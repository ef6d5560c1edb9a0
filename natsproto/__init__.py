"""NATS in pure Python: text protocol, asyncio client, JetStream. The object store is :mod:`objstore`.

Everything here is loaded on first use::

    import natsproto

    async with natsproto.connect("nats://127.0.0.1:4222") as nc:
        await nc.publish("greet", b"hello")

:mod:`natsproto.wire` parses and serializes the protocol without any I/O and can be used alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from . import errors
    from . import jetstream as jetstream
    from . import server as server
    from . import testing as testing
    from . import wire as wire
    from .aio.client import Client
    from .aio.connect import connect
    from .aio.msg import Msg
    from .aio.request_many import Responses
    from .aio.subscription import Subscription
    from .errors import NatsError
    from .headers import Headers
    from .jetstream.context import JetStreamContext

_WHERE = {
    "connect": "aio.connect",
    "Client": "aio.client",
    "Msg": "aio.msg",
    "Responses": "aio.request_many",
    "Subscription": "aio.subscription",
    "Headers": "headers",
    "JetStreamContext": "jetstream.context",
    "NatsError": "errors",
}

__all__ = [
    "Client",
    "Headers",
    "JetStreamContext",
    "Msg",
    "NatsError",
    "Responses",
    "Subscription",
    "__version__",
    "connect",
    "errors",
]


if not TYPE_CHECKING:  # else type checkers would accept any name

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in _WHERE:
            value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
            globals()[name] = value
            return value
        if name in ("errors", "wire", "server", "jetstream", "testing"):
            return import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
