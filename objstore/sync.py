"""The object store and the client without ``await``: for scripts, notebooks and threads.

::

    import objstore.sync

    with objstore.sync.connect() as nc:
        store = nc.object_store("media", create=True)
        store.put("hello.txt", b"hello")
        for piece in store.open_reader("hello.txt"):
            print(piece)

Each class has the methods of its asyncio twin, with the same arguments, results and errors. Any number of
threads may use a connection. ``docs/sync.md`` says how it behaves in notebooks and web servers, under fork,
on Ctrl-C and at exit.
"""

from __future__ import annotations

from .blocking.call import timeout
from .blocking.client import Client, connect
from .blocking.consumers import JetStreamMsg, PullConsumer, PushConsumer
from .blocking.fast_publisher import FastPublisher
from .blocking.jetstream import JetStreamContext
from .blocking.messages import Msg, Responses, Subscription
from .blocking.store import ObjectStore
from .blocking.streams import ObjectReader, ObjectWriter, Upload, Watcher

__all__ = [
    "Client",
    "FastPublisher",
    "JetStreamContext",
    "JetStreamMsg",
    "Msg",
    "ObjectReader",
    "ObjectStore",
    "ObjectWriter",
    "PullConsumer",
    "PushConsumer",
    "Responses",
    "Subscription",
    "Upload",
    "Watcher",
    "connect",
    "timeout",
]
