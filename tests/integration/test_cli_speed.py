"""What the command promises about its speed, as ratios: the first row of ``ls``, and ``sync``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import natsproto
from natsproto.server import LocalServer
from objstore import ObjectStore

pytestmark = pytest.mark.bench

MANY = 10_000
TRIES = 5


@pytest.fixture
def words(new_server: LocalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    return [sys.executable, "-m", "objstore", "--server", new_server.url]


async def fill(store: ObjectStore) -> None:
    room = asyncio.Semaphore(64)

    async def put(number: int) -> None:
        async with room:
            await store.put(f"dir{number % 10}/{number:05}", b"x")

    await asyncio.gather(*(put(number) for number in range(MANY)))


def first_row(words: list[str]) -> float:
    """Seconds until the first row after the head, or until the end."""
    begun = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        took = time.perf_counter() - begun
        process.stdout.read()
    assert process.returncode == 0
    return took


def test_ls_shows_its_first_row_at_once(words: list[str], new_server: LocalServer) -> None:
    """Within twice the time that an empty bucket takes."""

    async def prepare() -> None:
        async with natsproto.connect(new_server.url) as client:
            js = client.jetstream()
            await js.create_object_store(bucket="ls-empty", storage="memory")
            await fill(await js.create_object_store(bucket="ls-many", storage="memory"))

    asyncio.run(prepare())
    empty = min(first_row([*words, "ls", "ls-empty"]) for _ in range(TRIES))
    many = min(first_row([*words, "ls", "-r", "ls-many"]) for _ in range(TRIES))
    assert many <= 2 * empty, f"{many:.3f} s, and {empty:.3f} s for an empty bucket"


def test_sync_is_quicker_than_a_loop(words: list[str], tmp_path: Path) -> None:
    """At least five times as quick as one ``put`` after the other."""

    def run(*more: str) -> float:
        begun = time.perf_counter()
        subprocess.run([*words, "-q", *more], check=True)
        return time.perf_counter() - begun

    for number in range(MANY):
        path = tmp_path / "files" / f"dir{number % 20}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    run("bucket", "add", "sync-many")
    one = min(run("put", "sync-many", f"files/dir{number}/{number}") for number in range(TRIES))
    whole = run("sync", "files", "natsobj://sync-many/all/")
    assert whole * 5 <= one * MANY, f"{whole:.1f} s, and {one:.3f} s for one put"
