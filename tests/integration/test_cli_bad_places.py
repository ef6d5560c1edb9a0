"""The command where files cannot be written, and where the server goes away: nothing is half-written."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.server import LocalServer
from objstore import ObjectStore
from objstore.cli import connection
from objstore.cli.main import main
from objstore.read import files
from support.skips import missing

DATA = bytes(range(256)) * 4000


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for nearly nothing."""
    if os.geteuid() or not Path("/proc/mounts").exists():
        missing("root, for a file system of its own size,")
    place = tmp_path / "place"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)]).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def failing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a command that fails; what it says, which is one line."""
    for name in [name for name in os.environ if name.startswith("NATS_") and name != "NATS_SERVER_BIN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NATS_TIMEOUT", "10s")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int) -> str:
        found = main(words)
        out, err = capfd.readouterr()
        assert (found, out) == (code, ""), err
        assert err.startswith("objstore: "), err
        assert err.count("\n") == 1, err
        return err.removeprefix("objstore: ").rstrip()

    return run


@pytest.fixture
def bucket(new_server: LocalServer, bucket_name: str) -> Iterator[str]:
    """A bucket with one object, ``f``."""

    async def add() -> None:
        async with natsproto.connect(new_server.url) as client:
            store = await client.jetstream().create_object_store(bucket=bucket_name, storage="memory")
            await store.put("f", DATA)

    asyncio.run(add())
    yield bucket_name
    assert main(["-q", "-s", new_server.url, "bucket", "rm", "-f", bucket_name]) == 0


@pytest.mark.parametrize("read_only", [False, True])
def test_a_place_that_takes_no_file(
    place: Path, failing: Callable[..., str], new_server: LocalServer, bucket: str, read_only: bool
) -> None:
    """A full disk, and a read-only one: the error names the target, not the file that is filled first."""
    (place / "out").mkdir()
    if read_only:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    target = f"{place}/out/f"
    why = (
        "read-only file system. Choose"
        if read_only
        else "no space left on device. Free some space, or choose"
    )
    for words in (
        ["get", bucket, "f", "-O", target],
        ["get", bucket, "f", "-f", "-O", target],
        ["get", bucket, "f", "--resume", "-O", target],
        ["get", "-r", bucket, "-O", f"{place}/out"],
        ["cp", f"natsobj://{bucket}/f", target],
        ["mv", f"natsobj://{bucket}/f", target],
        ["sync", f"natsobj://{bucket}", f"{place}/out"],
    ):
        said = failing("-s", new_server.url, *words, code=1)
        assert said == f"{target!r} cannot be written: {why} another place", words
        kept = os.listdir(place / "out")
        assert not kept if "--resume" not in words or read_only else len(kept) <= 1
        for name in kept:
            assert name.startswith("..objstore-")
            os.unlink(place / "out" / name)


@pytest.mark.parametrize("verb", ["get", "put"])
def test_a_server_that_goes_away_in_the_middle(
    failing: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    """It stays away for longer than the command tries again."""
    plain_settings = connection.settings

    def impatient(*args: Any) -> connection.Settings:
        found = plain_settings(*args)
        found.options["retry_budget"] = 0.3  # type: ignore[typeddict-unknown-key]
        return found

    def killing(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            def progress(done: int, total: int | None) -> None:
                own.kill()

            return plain(*args, **{**options, "progress": progress})

        return call

    out = tmp_path / "out"
    out.mkdir()
    with open(tmp_path / "f", "wb") as file:
        file.truncate(40_000_000)  # nobody reads ahead so far
    with LocalServer(store_dir=str(tmp_path / "data")) as own:
        first = ("-q", "-s", own.url)
        assert main([*first, "bucket", "add", "b"]) == 0
        if verb == "get":
            assert main([*first, "put", "b", "f"]) == 0
        with monkeypatch.context() as patch:
            patch.setattr(connection, "settings", impatient)
            patch.setattr(files, "get_file", killing(files.get_file))
            patch.setattr(ObjectStore, "put_file", killing(ObjectStore.put_file))
            said = failing(
                *first, *(["get", "b", "f", "-O", "out/f"] if verb == "get" else ["put", "b", "f"]), code=5
            )
        assert re.search(r"put and get continue with: --resume$|Try again, .* --timeout 30s$", said), said
        assert os.listdir(out) == []
        own.start()
        assert main([*first, "ls", "b", "-n"]) == 0
        assert capfd.readouterr().out == ("f\n" if verb == "get" else "")
