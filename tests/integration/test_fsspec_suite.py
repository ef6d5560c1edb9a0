"""fsspec's own tests of file systems, on a real server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import fsspec.tests.abstract as abstract
import pytest

from natsproto.server import LocalServer
from objstore.filesystem import NatsObjectFileSystem


@pytest.fixture(scope="module")
def shared(new_server: LocalServer) -> Iterator[NatsObjectFileSystem]:
    fs = NatsObjectFileSystem(new_server.url, skip_instance_cache=True)
    yield fs
    fs.close()


class Fixtures(abstract.AbstractFixtures):
    """What fsspec's tests want to know: an empty place, and that directories are virtual."""

    @pytest.fixture
    def fs(self, shared: NatsObjectFileSystem) -> NatsObjectFileSystem:
        return shared

    @pytest.fixture
    def fs_path(self, shared: NatsObjectFileSystem) -> Iterator[str]:
        bucket = "t-" + uuid.uuid4().hex[:12]
        shared.mkdir(bucket, storage="memory")
        yield bucket
        shared.rm(bucket, recursive=True)

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    pass
