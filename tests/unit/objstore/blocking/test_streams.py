"""Open readers, writers, uploads and watches."""

from __future__ import annotations

import io
import shutil
import threading
import zipfile

import pytest

from natsproto.errors import ConnectionClosedError, RequestTimeoutError
from objstore import ObjectNotFoundError
from objstore.blocking.streams import PIECE
from objstore.sync import ObjectStore

DATA = bytes(range(251)) * 10_000


class TestReader:
    def test_iterated(self, store: ObjectStore) -> None:
        store.put("a", DATA)
        reader = store.open_reader("a")
        pieces = list(reader)
        assert b"".join(pieces) == DATA
        assert [len(piece) for piece in pieces] == [PIECE, PIECE, len(DATA) - 2 * PIECE]
        assert reader.closed
        assert list(reader) == []
        store.put("empty", b"")
        assert list(store.open_reader("empty")) == []

    def test_like_a_file(self, store: ObjectStore) -> None:
        store.put("a", DATA)
        with store.open_reader("a") as reader:
            assert (reader.readable(), reader.seekable(), reader.writable()) == (True, True, False)
            assert reader.info.size == len(DATA)
            assert reader.seek(-3, io.SEEK_END) == reader.tell() == len(DATA) - 3
            assert reader.read() == DATA[-3:]
            reader.seek(5)
            buffer = bytearray(7)
            assert reader.readinto(buffer) == 7
            assert buffer == DATA[5:12]
            assert "12 of" in repr(reader)
            target = io.BytesIO()
            reader.seek(0)
            shutil.copyfileobj(reader, target)  # type: ignore[misc]
            assert target.getvalue() == DATA
        with pytest.raises(ConnectionClosedError):
            reader.read()
        reader.close()

    def test_stored_again(self, store: ObjectStore) -> None:
        """A put reads it in a helper thread, from its position on."""
        store.put("a", DATA)
        with store.open_reader("a") as reader:
            reader.seek(10)
            store.put("b", reader)
        assert store.get("b") == DATA[10:]

    def test_several_threads_take_turns(self, store: ObjectStore) -> None:
        store.put("a", DATA)
        with store.open_reader("a") as reader:
            found: list[bytes] = []

            def read() -> None:
                while piece := reader.read(10_000):
                    found.append(piece)

            threads = [threading.Thread(target=read) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        assert sorted(b"".join(found)) == sorted(DATA)

    def test_after_its_connection(self, store: ObjectStore) -> None:
        """There is nothing left to close."""
        store.put("a", DATA)
        with store.open_reader("a") as reader, store.open_writer("b") as writer:
            writer.write(b"1")
            writer.abort()
            store.client.close()
            with pytest.raises(ConnectionClosedError):
                reader.read()
            with pytest.raises(ConnectionClosedError):
                writer.write(b"1")

    def test_not_there(self, store: ObjectStore) -> None:
        with pytest.raises(ObjectNotFoundError):
            store.open_reader("nowhere")

    def test_dropped(self, store: ObjectStore) -> None:
        store.put("a", DATA)

        def look() -> None:
            for _ in store.open_reader("a"):
                break

        with pytest.warns(ResourceWarning, match="was dropped: use it with 'with', or close"):
            look()
        store.client.drain()


class TestWriter:
    def test_committed(self, store: ObjectStore) -> None:
        with store.open_writer("a", "described", chunk_size=100_000) as writer:
            assert (writer.readable(), writer.seekable(), writer.writable()) == (False, False, True)
            assert writer.write(DATA) == len(DATA) == writer.tell()
            writer.flush()
            assert writer.info is None
            assert not store.exists("a")
        assert writer.info is not None
        assert writer.info.revision == store.get_info("a").revision
        assert (store.get("a"), writer.info.description) == (DATA, "described")
        with pytest.raises(ConnectionClosedError):
            writer.write(b"more")
        assert "ObjectWriter" in repr(writer)

    def test_without_a_block(self, store: ObjectStore) -> None:
        writer = store.open_writer("a")
        writer.write(b"1")
        assert writer.commit().size == 1
        with store.open_writer("b") as writer:
            assert writer.commit().size == 0

    def test_aborted(self, store: ObjectStore) -> None:
        with pytest.raises(KeyError), store.open_writer("a") as writer:
            writer.write(DATA)
            raise KeyError
        writer = store.open_writer("a")
        writer.write(DATA)
        writer.abort()
        writer.abort()
        assert store.names() == []
        assert store.verify().ok

    def test_like_a_file(self, store: ObjectStore) -> None:
        with store.open_writer("a.zip") as writer, zipfile.ZipFile(writer, "w") as archive:  # type: ignore[call-overload]
            archive.writestr("name", DATA)
        with store.open_reader("a.zip") as reader, zipfile.ZipFile(reader) as archive:  # type: ignore[call-overload]
            assert archive.read("name") == DATA

    def test_dropped(self, store: ObjectStore) -> None:
        with pytest.warns(ResourceWarning, match="was dropped: use it with 'with', or call commit"):
            store.open_writer("a").write(DATA)
        store.client.drain()

    def test_never_used(self, store: ObjectStore) -> None:
        store.open_writer("a")


def test_uploads(store: ObjectStore) -> None:
    token = store.begin_upload("a", chunk_size=100_000).token

    def half() -> list[bytes]:
        raise OSError("the line is cut")

    upload = store.begin_upload("a", token=token)
    assert (upload.name, upload.token) == ("a", token)
    with pytest.raises(OSError, match="the line is cut"):
        upload.send(piece for number in range(3) for piece in ([DATA] if number < 2 else half()))
    assert upload.stored() > 0
    assert upload.send(iter([DATA] * 3)).size == 3 * len(DATA)
    assert store.get("a") == DATA * 3
    other = store.begin_upload("b")
    other.abort()
    assert "Upload of 'b'" in repr(other)
    assert other.nuid != upload.nuid


class TestWatcher:
    def test_changes(self, store: ObjectStore) -> None:
        store.put("a", b"1")
        store.put("b", b"2")
        with store.watch() as watcher:
            watcher.wait_caught_up(20)
            assert [info.name for info in watcher.changes(timeout=0.01)] == ["a", "b"]
            with pytest.raises(RequestTimeoutError, match=r"nothing was changed within 0\.01 s"):
                watcher.next(timeout=0.01)
            store.delete("a")
            assert watcher.next().deleted
            store.put("c", b"3")
            assert next(watcher).name == "c"
        assert list(watcher) == []
        assert list(watcher.changes(timeout=60)) == []
        with pytest.raises(ConnectionClosedError):
            watcher.next()

    def test_ended_by_another_thread(self, store: ObjectStore) -> None:
        watcher = store.watch().start()
        found: list[str] = []
        reader = threading.Thread(target=lambda: found.extend(info.name for info in watcher))
        reader.start()
        store.put("a", b"1")
        watcher.wait_caught_up()
        watcher.stop()
        reader.join(20)
        assert not reader.is_alive()

    def test_dropped(self, store: ObjectStore) -> None:
        store.put("a", b"1")
        for info in store.watch():
            assert info.name == "a"
            break

    def test_not_caught_up_in_time(self, store: ObjectStore) -> None:
        watcher = store.watch()
        with pytest.raises(RequestTimeoutError, match="the state at the start"):
            watcher.wait_caught_up(1e-9)
        watcher.stop()
