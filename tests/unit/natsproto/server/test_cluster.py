"""``LocalCluster``: ready when it has started, and nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import nats
import pytest

from natsproto.errors import ServerProcessError
from natsproto.server import LocalCluster, find_server


async def create_replicated(cluster: LocalCluster, via: int, name: str) -> int:
    nc = await nats.connect(cluster.urls[via], connect_timeout=10)
    try:
        info = await nc.jetstream().add_stream(name=name, subjects=[name], num_replicas=3)
        assert info.cluster is not None
        return len(info.cluster.replicas or [])
    finally:
        await nc.close()


@pytest.mark.cluster
async def test_cluster_is_ready_when_start_returns(binary: str, tmp_path: Path) -> None:
    async with LocalCluster(binary=binary, store_dir=tmp_path / "s", log_file=tmp_path / "log") as cluster:
        assert await create_replicated(cluster, 0, "A") == 2
        assert cluster.meta_leader in cluster.servers
        assert [server.name for server in cluster.servers] == ["natsproto-1", "natsproto-2", "natsproto-3"]
        assert cluster.url == ",".join(cluster.urls)
        assert len({server.port for server in cluster.servers}) == 3
        assert "natsproto-2" in repr(cluster)
        lost = next(server for server in cluster.servers if server is not cluster.meta_leader)
        url = lost.url
        await asyncio.to_thread(lost.kill)
        with pytest.raises(ServerProcessError):
            await asyncio.to_thread(cluster.wait_ready, 1)
        await asyncio.to_thread(lost.start)
        await asyncio.to_thread(cluster.wait_ready)
        assert lost.url == url
        assert await create_replicated(cluster, 1, "B") == 2
    names = [f"natsproto-{n}" for n in (1, 2, 3)]
    assert sorted(os.listdir(tmp_path / "s")) == names
    assert sorted(os.listdir(tmp_path)) == [*(f"log.{name}" for name in names), "s"]
    assert not any(server.running for server in cluster.servers)


@pytest.mark.cluster
def test_cluster_without_jetstream(binary: str) -> None:
    with LocalCluster(2, binary=binary, jetstream=False, name="plain") as cluster:
        assert all(server.monitor("routez")["num_routes"] for server in cluster.servers)
        assert cluster.version == find_server(binary).version
        assert cluster.start() is cluster


@pytest.mark.cluster
def test_a_failing_cluster_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cluster = LocalCluster(config="nonsense {")
    with pytest.raises(ServerProcessError, match="Parse error"):
        cluster.start()
    assert list(tmp_path.iterdir()) == []
    assert shutil.which(cluster.servers[0].binary.path)
