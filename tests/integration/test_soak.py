"""The soak itself: a few seconds of it, and that it notices what is wrong."""

from __future__ import annotations

import asyncio
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
from tests.soak.routes import cluster

ROOT = Path(__file__).resolve().parents[2]


def soak(*words: str, code: int) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *words], capture_output=True, text=True, cwd=ROOT, timeout=200
    )
    if done.returncode != code:  # pytest shortens what an assertion compares
        pytest.fail(
            f"exit code {done.returncode}:\n{done.stdout[-16000:]}\n{done.stderr[-4000:]}", pytrace=False
        )
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
    assert found["operations"] > 10
    assert found["watched"] > 10
    assert found["objects_read_back"] > 0


async def test_audit_notices_destroyed_objects(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.soak.audit.READABLE", 1.0)  # nothing comes back here
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
    assert check_bucket(store.bucket, found.ops, found.versions, 0.0) == []


@pytest.mark.cluster
async def test_a_partition_holds_back_and_heals() -> None:
    async with cluster() as servers, natsproto.connect(servers.urls, ignore_discovered=True) as client:
        js = client.jetstream()
        store = await js.create_object_store(bucket="b", replicas=3)
        await store.put("n", b"old")
        everybody = {(one, two) for one in range(3) for two in range(3) if one != two}
        servers.routes.cut(everybody)
        put = asyncio.create_task(store.put("n", b"new"))
        await asyncio.wait([put], timeout=0.5)
        assert not put.done(), "one server alone committed it"
        servers.routes.cut(set())
        async with asyncio.timeout(90):
            await put
        assert await store.get("n") == b"new"
