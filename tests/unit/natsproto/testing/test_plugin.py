"""The pytest plugin, in a pytest of its own: it is loaded only where somebody asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from natsproto.server import LocalServer

ROOT = Path(__file__).parents[4]

TESTS = """
import natsproto
from natsproto.server import LocalServer

async def test_nc(nc, nats_url):
    assert isinstance(nc, natsproto.Client)
    await nc.flush()
    assert nats_url.startswith("nats://127.0.0.1:")

async def test_js(js):
    assert isinstance(js, natsproto.JetStreamContext)

async def test_bucket(bucket):
    await bucket.put("a", b"1")
    assert await bucket.get("a") == b"1"

async def test_a_bucket_is_empty(bucket, js):
    assert await bucket.list() == []
    await js.delete_object_store(bucket.bucket)

async def test_a_closed_connection(bucket, nc):
    await nc.close()

def test_server(nats_server):
    assert isinstance(nats_server, LocalServer) and nats_server.running
"""

INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def run(tmp_path: Path, *args: str) -> str:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["natsproto.testing.plugin"]\n')
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "test_it.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *args],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_fixtures(tmp_path: Path) -> None:
    assert "6 passed" in run(tmp_path)


def test_an_outside_server(tmp_path: Path) -> None:
    with LocalServer() as server:
        out = run(tmp_path, f"--nats-url={server.url}")
        assert "5 passed, 1 skipped" in out
        assert "--nats-url was given" in out
        assert server.jsz()["streams"] <= 1  # that of the closed connection; the others are deleted


def test_importing_the_tools_does_not_load_pytest() -> None:
    code = "import sys, natsproto.testing; sys.exit('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest_asyncio", None)
    monkeypatch.delitem(sys.modules, "natsproto.testing.plugin", raising=False)
    with pytest.raises(ImportError, match=r"natsproto\[test\]"):
        import natsproto.testing.plugin  # noqa: F401
