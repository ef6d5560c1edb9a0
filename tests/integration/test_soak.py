"""The soak itself: a few seconds of it, and that it notices what is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import natsproto
from natsproto.server import LocalServer
from objstore import ObjectStore
from support.objects import chunk_subject
from tests.soak.audit import audit
from tests.soak.checker import check_bucket

ROOT = Path(__file__).resolve().parents[2]


def soak(*words: str, code: int) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *words], capture_output=True, text=True, cwd=ROOT, timeout=200
    )
    assert done.returncode == code, (done.stdout[-4000:], done.stderr[-4000:])
    return done.stdout, done.stderr


def test_wrong_usage_is_told() -> None:
    _, err = soak("--minutes", "1", "--faults", "earthquake", code=2)
    assert "unknown fault 'earthquake'" in err


def test_ten_seconds_without_faults(server: LocalServer, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    out, _ = soak(
        "--minutes", "0.17", "--faults", "none", "--server", server.binary.path, "--report", str(report),
        "--processes", "2", code=0,
    )  # fmt: skip
    assert re.match(r"seed \d+\n", out), "a seed that was drawn is printed"
    found = json.loads(report.read_text())
    assert found["violations"] == []
    assert found["server"] == server.version
    assert found["operations"] > 50
    assert found["watched"] > 50
    assert found["objects_read_back"] > 0


async def test_audit_notices_destroyed_objects(store: ObjectStore) -> None:
    body = "a-1:3"
    data = b"<a-"
    await store.put("good", data, "a-1", metadata={"body": body})
    info = await store.put("bad", data, "a-2", metadata={"body": body})
    await store.js.purge_stream(f"OBJ_{store.bucket}", subject=chunk_subject(store, info.nuid))
    found = await audit(store.js, store.bucket, [], 0)
    kinds = {violation.kind for violation in found.violations}
    assert kinds == {"verify found damage", "unreadable when all is quiet"}
    assert {violation.name for violation in found.violations} == {"bad"}
    assert {version.name for version in found.versions} == {"good", "bad"}


async def test_audit_reads_metas_by_itself(store: ObjectStore) -> None:
    await store.put("n", b"abc", "a-1", metadata={"body": "a-1:3"})
    await store.add_link("link", await store.get_info("n"), description="a-2")
    await store.put("gone", b"abc", "a-3", metadata={"body": "a-3:3"})
    await store.delete("gone")
    found = await audit(store.js, store.bucket, [], 0)
    assert found.violations == []
    facts = {item.name: (item.deleted, item.link, item.body) for item in found.versions}
    assert facts == {"n": (False, False, "a-1:3"), "link": (False, True, ""), "gone": (True, False, "")}
    listed = [info for info in await store.list() if not info.is_link]
    assert {info.digest for info in listed} == {
        f"SHA-256={item.digest}" for item in found.versions if item.body
    }
    kinds = {violation.kind for violation in check_bucket(store.bucket, found.ops, found.versions, 0.0)}
    assert kinds == {"wrong bytes"}, "the soak's bodies have other bytes than b'abc'"


@pytest.mark.cluster
async def test_a_partition_heals() -> None:
    from tests.soak.routes import cluster

    async with cluster() as servers, natsproto.connect(servers.urls, ignore_discovered=True) as client:
        js = client.jetstream()
        store = await js.create_object_store(bucket="b", replicas=3)
        await store.put("n", b"old")
        raw = (await js.stream_info("OBJ_b")).raw
        leader = int(raw["cluster"]["leader"].rpartition("-")[2]) - 1
        others = [number for number in range(3) if number != leader]
        servers.routes.cut({pair for other in others for pair in ((leader, other), (other, leader))})
        before = raw["cluster"]["leader"]
        try:
            await store.put("n", b"new")
        except natsproto.NatsError:
            pass  # nobody could know
        finally:
            servers.routes.cut(set())
        await store.put("n", b"newest")
        assert await store.get("n") == b"newest"
        assert before
