"""The token of an interrupted upload: kept until it is complete, used by one command at a time."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from natsproto.errors import StaleConnectionError
from objstore import ObjectStore, RevisionConflictError
from objstore.cli.output import CommandError
from objstore.cli.resume import _locked, put_resumed, token_file, uploads_directory
from objstore.write.upload import Upload

DATA = bytes(range(256)) * 40


@pytest.fixture
def args(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(DATA)
    return Namespace(
        description="d",
        headers=[("A", "1")],
        metadata=[("k", "v")],
        chunk_size=1000,
        create=False,
        if_revision=None,
    )


def tokens() -> list[str]:
    try:
        return os.listdir(uploads_directory(os.environ))
    except FileNotFoundError:
        return []


async def send(store: ObjectStore, args: Namespace) -> Any:
    return await put_resumed(store, "n", "file", args, {"A": ["1"]}, None)


async def test_an_upload_that_is_interrupted(
    store: ObjectStore, args: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    plain = Upload.send

    async def interrupted(self: Upload, *some: Any, **options: Any) -> Any:
        sent.append(self.token)
        if len(sent) == 1:
            raise StaleConnectionError("lost")
        return await plain(self, *some, **options)

    monkeypatch.setattr(Upload, "send", interrupted)
    with pytest.raises(StaleConnectionError):
        await send(store, args)
    (kept,) = tokens()
    path = Path(uploads_directory(os.environ)) / kept
    assert path.stat().st_mode & 0o777 == 0o600
    info = await send(store, args)
    assert sent[0] == sent[1]
    assert tokens() == []
    assert (info.size, info.chunks, info.description, info.metadata["k"]) == (len(DATA), 11, "d", "v")
    assert info.metadata["filename"] == "file"
    assert await store.get("n") == DATA


async def test_a_token_that_is_damaged(store: ObjectStore, args: Namespace) -> None:
    path = Path(token_file(store, "n", "file", args))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xffnonsense")
    assert (await send(store, args)).size == len(DATA)
    assert tokens() == []


async def test_other_options_are_another_upload(store: ObjectStore, args: Namespace) -> None:
    first = token_file(store, "n", "file", args)
    assert token_file(store, "n", "./file", args) == first
    args.chunk_size = 2000
    assert token_file(store, "n", "file", args) != first


async def test_two_commands_at_once(store: ObjectStore, args: Namespace) -> None:
    refused = pytest.raises(CommandError, match="another command is uploading")
    with _locked(token_file(store, "n", "file", args)), refused as told:
        await send(store, args)
    assert told.value.code == 4


async def test_it_must_not_exist(store: ObjectStore, args: Namespace) -> None:
    await store.put("n", b"")
    args.create = True
    with pytest.raises(RevisionConflictError):
        await send(store, args)


def test_where_tokens_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert uploads_directory({}) == str(tmp_path / ".local" / "state" / "objstore" / "uploads")
