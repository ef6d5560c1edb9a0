"""Transactions: they always end, and say what became of their files."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator

import pytest
from fsspec.transaction import Transaction

from objstore import StoreFullError
from objstore.filesystem import NatsObjectFileSystem
from objstore.filesystem.files import ObjectFile
from objstore.filesystem.writing import Writing
from support.memory_server import MemoryServer

from .conftest import InMemory

LARGE = b"x" * (5 << 20)


class Old(Transaction):
    """What ends a transaction in fsspec before 2026.9."""

    def complete(self, commit: bool = True) -> None:
        while self.files:
            file = self.files.popleft()
            if commit:
                file.commit()
            else:
                file.discard()
        self.fs._intrans = False
        self.fs._transaction = None
        self.fs = None


@pytest.fixture(params=["installed", "before 2026.9"], autouse=True)
def fsspecs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "installed":
        monkeypatch.setattr(Transaction, "complete", Old.complete)


def write(fs: NatsObjectFileSystem, *names: str, data: bytes = b"new", mode: str = "wb") -> None:
    for name in names:
        with fs.open(f"b/{name}", mode) as file:
            file.write(data)


def check_ended(fs: NatsObjectFileSystem) -> None:
    """What is written now is there when it is closed."""
    assert not fs._intrans
    assert not fs.transaction.files
    assert fs._invalidated_caches_in_transaction == []
    write(fs, "later")
    assert fs.cat_file("b/later") == b"new"
    fs.rm_file("b/later")
    with fs.transaction:
        write(fs, "later")
        assert not fs.exists("b/later")
    assert fs.exists("b/later")
    fs.rm_file("b/later")


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("data", [b"new", LARGE])
def test_a_commit_that_fails(
    fs: NatsObjectFileSystem, memory: MemoryServer, data: bytes, by_hand: bool
) -> None:
    """Another client has created the second file meanwhile."""

    def body() -> None:
        write(fs, "a", "b", "c", "d", data=data, mode="xb")
        fs.pipe_file("b/b", b"of another one")
        fs.invalidate_cache("b/b")

    with pytest.raises(FileExistsError) as caught:
        if by_hand:
            fs.start_transaction()
            body()
            fs.end_transaction()
        else:
            with fs.transaction:
                body()
    assert caught.value.__notes__ == [
        "'b/b' failed: 1 of 4 files of the transaction stored before it, 2 discarded after it"
    ]
    assert fs.cat("b", recursive=True) == {"b/a": data, "b/b": b"of another one"}
    fs.rm(fs.find("b"))
    assert memory.chunks() == {}
    check_ended(fs)


def test_the_only_file_fails(fs: NatsObjectFileSystem) -> None:
    with pytest.raises(FileExistsError) as caught, fs.transaction:
        write(fs, "a", mode="xb")
        fs.pipe_file("b/a", b"of another one")
    assert not hasattr(caught.value, "__notes__")
    check_ended(fs)


def test_an_interrupted_commit(fs: NatsObjectFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: ObjectFile) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught, monkeypatch.context() as patch, fs.transaction:
        write(fs, "a", "b")
        patch.setattr(ObjectFile, "commit", interrupted)
    assert caught.value.__notes__ == [
        "'b/a' failed: 0 of 2 files of the transaction stored before it, 1 discarded after it"
    ]
    assert fs.find("b") == []
    check_ended(fs)


@pytest.mark.parametrize("by_hand", [False, True])
def test_an_exception_in_the_block(fs: NatsObjectFileSystem, memory: MemoryServer, by_hand: bool) -> None:
    with pytest.raises(KeyError):
        if by_hand:
            transaction = fs.start_transaction()
            write(fs, "a", "b", data=LARGE)
            transaction.complete(commit=False)
            raise KeyError
        with fs.transaction:
            write(fs, "a", "b", data=LARGE)
            raise KeyError
    assert memory.chunks() == {}
    check_ended(fs)


def test_a_discard_that_fails(
    fs: NatsObjectFileSystem,
    memory: MemoryServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The others are discarded, and the error is that of the block."""
    abort = Writing.abort

    async def fail(self: Writing) -> None:
        await abort(self)
        if self._name == "a":
            raise StoreFullError("no answer")

    monkeypatch.setattr(Writing, "abort", fail)
    with caplog.at_level(logging.WARNING, "objstore.filesystem"), pytest.raises(KeyError), fs.transaction:
        write(fs, "a", "b", data=LARGE)
        raise KeyError
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "'b/a' could not be discarded"
    ]
    assert memory.chunks() == {}
    check_ended(fs)


def test_discarded_files_do_not_count(fs: NatsObjectFileSystem) -> None:
    with pytest.raises(FileExistsError) as caught, fs.transaction:
        with pytest.raises(KeyError), fs.open("b/failed", "wb") as file:
            raise KeyError
        file = fs.open("b/early", "wb", autocommit=False)
        file.commit()
        assert fs.exists("b/early")
        write(fs, "a", "b", mode="xb")
        fs.pipe_file("b/a", b"of another one")
    assert caught.value.__notes__ == [
        "'b/a' failed: 0 of 2 files of the transaction stored before it, 1 discarded after it"
    ]
    assert fs.find("b") == ["b/a", "b/early"]


@pytest.mark.parametrize("outer_by_hand", [False, True])
@pytest.mark.parametrize("inner_by_hand", [False, True])
def test_one_in_another(fs: NatsObjectFileSystem, outer_by_hand: bool, inner_by_hand: bool) -> None:
    """Files would be lost, or visible too early: the second one does not begin."""
    outer = fs.start_transaction() if outer_by_hand else fs.transaction.__enter__()
    write(fs, "a")
    with pytest.raises(RuntimeError, match=r"in a transaction already.*skip_instance_cache=True"):
        if inner_by_hand:
            fs.start_transaction()
        else:
            fs.transaction.__enter__()
    write(fs, "b")
    assert fs.find("b") == []
    if outer_by_hand:
        fs.end_transaction()
    else:
        outer.__exit__(None, None, None)
    assert fs.find("b") == ["b/a", "b/b"]
    check_ended(fs)


def test_two_that_begin_at_once(fs: NatsObjectFileSystem) -> None:
    """Each thread has made its own; only one is that of the file system."""
    late = fs.transaction_type(fs)
    with fs.transaction:
        with pytest.raises(RuntimeError, match="already"), late:
            raise AssertionError("unreachable")
        write(fs, "a")
    assert fs.exists("b/a")
    check_ended(fs)


def test_ended_twice(fs: NatsObjectFileSystem) -> None:
    with fs.transaction as transaction:
        write(fs, "a")
        fs.end_transaction()
        assert fs.exists("b/a")
        check_ended(fs)
    transaction.complete()
    fs.end_transaction()
    check_ended(fs)


class TestStillOpen:
    """A file that is open when the transaction ends."""

    @pytest.mark.parametrize("compression", [None, "gzip"])
    @pytest.mark.parametrize("mode", ["wb", "w"])
    def test_it_is_closed_first(self, fs: NatsObjectFileSystem, mode: str, compression: str | None) -> None:
        """With all that was written so far, also what its text or its compression holds back."""
        with fs.transaction:
            file = fs.open("b/a", mode, compression=compression)
            file.write("told" if mode == "w" else b"told")
        stored = fs.cat_file("b/a")
        assert (stored if compression is None else gzip.decompress(stored)) == b"told"
        assert file.closed
        file.close()
        with pytest.raises(ValueError, match=r"closed|not in write mode"):
            file.write("more" if mode == "w" else b"more")
        assert fs.cat_file("b/a") == stored

    @pytest.mark.parametrize("compression", [None, "gzip"])
    @pytest.mark.parametrize("mode", ["wb", "w"])
    def test_it_is_discarded(self, fs: NatsObjectFileSystem, mode: str, compression: str | None) -> None:
        with pytest.raises(KeyError), fs.transaction:
            file = fs.open("b/a", mode, compression=compression)
            file.write("told" if mode == "w" else b"told")
            raise KeyError
        file.close()
        assert fs.find("b") == []
        check_ended(fs)

    def test_it_could_not_be_opened(self, fs: NatsObjectFileSystem) -> None:
        """Nothing of it is in the transaction."""
        fs.pipe_file("b/a", b"old")
        with fs.transaction, pytest.raises(LookupError):
            fs.open("b/a", "w", encoding="none such")
        assert fs.cat_file("b/a") == b"old"


@pytest.fixture
def cached(memory: MemoryServer) -> Iterator[list[NatsObjectFileSystem]]:
    """File systems that fsspec keeps."""
    NatsObjectFileSystem.clear_instance_cache()
    kept = [NatsObjectFileSystem(f"nats://127.0.0.1:{port}") for port in (1, 2)]
    for fs in kept:
        fs._connections = InMemory(memory)
    yield kept
    NatsObjectFileSystem.clear_instance_cache()


def test_file_systems_that_are_kept(cached: list[NatsObjectFileSystem]) -> None:
    """Each has a transaction of its own, and none is found in an old one."""
    one, two = cached
    with pytest.raises(FileExistsError), one.transaction, two.transaction:
        write(one, "one")
        write(two, "two", "three", mode="xb")
        two.pipe_file("b/two", b"of another one")
    assert one.find("b") == ["b/two"]
    for fs in cached:
        check_ended(fs)
    assert NatsObjectFileSystem("nats://127.0.0.1:2") is two
    with one.transaction:
        write(one, "one")
        write(two, "at once")
        assert two.find("b") == ["b/at once", "b/two"]
    assert one.exists("b/one")
