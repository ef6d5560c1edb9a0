"""A blocking client of a server in memory; no thread and no call may be left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from objstore.sync import Client, ObjectStore
from support.blocking import memory_client
from support.memory_server import MemoryServer


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert [thread for thread in threading.enumerate() if thread.name == "objstore-sync"] == []


@pytest.fixture
def connected() -> Iterator[tuple[Client, MemoryServer]]:
    client, server = memory_client()
    yield client, server
    client.close()


@pytest.fixture
def nc(connected: tuple[Client, MemoryServer]) -> Client:
    return connected[0]


@pytest.fixture
def store(nc: Client) -> ObjectStore:
    return nc.object_store("b", create=True)
