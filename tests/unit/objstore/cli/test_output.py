"""What reaches a terminal, and the JSON documents."""

from __future__ import annotations

import io
import json
import os
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproto._values import printable
from objstore.cli.output import (
    WIDEST,
    CommandError,
    Output,
    ReaderStopped,
    confirm,
    human_duration,
    human_size,
    human_time,
    object_document,
    status_document,
)
from objstore.format.models import (
    ObjectHeaders,
    ObjectInfo,
    ObjectLink,
    ObjectMetaOptions,
    ObjectStoreStatus,
    Placement,
)

NOW = datetime(2026, 1, 31, 12, 0, 0, 123456, UTC)
HEX = "SHA-256=" + "ab" * 32


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünïcode 名前", "plain ünïcode 名前"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\tc\rd\0", "a\\nb\\tc\\rd\\x00"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_escape(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.text())
def test_escaped_text_is_printable(text: str) -> None:
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2**60, "1024.0 PiB"),
    ],
)
def test_human_size(size: int, expected: str) -> None:
    assert human_size(size) == expected


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (timedelta(days=7), "7d"),
        (timedelta(hours=25, minutes=1, seconds=5), "1d1h1m5s"),
        (timedelta(seconds=90.5), "1m30s"),
        (timedelta(milliseconds=100), "0.1s"),
        (timedelta(0), "0s"),
    ],
)
def test_human_duration(age: timedelta, expected: str) -> None:
    assert human_duration(age) == expected


def test_human_time() -> None:
    assert human_time(NOW) == "2026-01-31 12:00:00Z"


def test_object_document_has_the_names_of_adr_20() -> None:
    info = ObjectInfo(
        "n",
        "text",
        ObjectHeaders({"A": ["1", "2"]}),
        3,
        1,
        HEX,
        False,
        NOW,
        "NUID",
        "b",
        options=ObjectMetaOptions(max_chunk_size=10),
        metadata={"k": "v"},
        revision=7,
    )
    assert object_document(info) == {
        "name": "n",
        "description": "text",
        "headers": {"A": ["1", "2"]},
        "metadata": {"k": "v"},
        "options": {"max_chunk_size": 10},
        "bucket": "b",
        "nuid": "NUID",
        "size": 3,
        "mtime": "2026-01-31T12:00:00.123456Z",
        "chunks": 1,
        "digest": HEX,
        "deleted": False,
        "revision": 7,
    }


def test_link_document() -> None:
    info = ObjectInfo(
        "n", None, None, 0, 0, "", False, NOW, "N", "b", options=ObjectMetaOptions(ObjectLink("other"))
    )
    document = object_document(info)
    assert document["options"] == {"link": {"bucket": "other", "name": None}}
    assert "headers" not in document
    assert "description" not in document


def test_status_document() -> None:
    status = ObjectStoreStatus(
        "b",
        "d",
        timedelta(hours=1),
        "file",
        3,
        False,
        10,
        2,
        "JetStream",
        metadata={"k": "v"},
        compression=True,
        max_bytes=100,
        placement=Placement("c", ("t",)),
    )
    assert status_document(status) == {
        "bucket": "b",
        "description": "d",
        "stream": "OBJ_b",
        "ttl": 3_600_000_000_000,
        "max_bytes": 100,
        "storage": "file",
        "num_replicas": 3,
        "compression": True,
        "sealed": False,
        "size": 10,
        "count": 2,
        "backing_store": "JetStream",
        "allow_direct": True,
        "allow_atomic": False,
        "allow_msg_ttl": False,
        "metadata": {"k": "v"},
        "placement": {"cluster": "c", "tags": ["t"]},
    }


def test_names_are_raw_in_a_pipe_and_escaped_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, expected in ((io.StringIO(), "a\x1bb\n"), (Terminal(), "a\\x1bb\n")):
        monkeypatch.setattr(sys, "stdout", stream)
        out = Output()
        out.lines(["a\x1bb"])
        assert stream.getvalue() == ""
        out.deliver()
        assert stream.getvalue() == expected
        stream.truncate(stream.seek(0))
        out.lines(["a\x1bb"], null=True)
        out.deliver()
        assert stream.getvalue() == expected.replace("\n", "\0")


def test_json_on_a_terminal_is_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    out = Output(json=True)
    out.document({"name": "\x9b31m\u202e"})
    out.deliver()
    assert stream.getvalue().isascii()
    assert json.loads(stream.getvalue()) == {"name": "\x9b31m\u202e"}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf8"])
def test_json_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    out = Output(json=True)
    out.record({"name": "\xe9\U0001f600"})
    out.document({"name": "\xe9"})
    out.deliver()
    written = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
    record, _, document = written.partition("\n")
    assert (json.loads(record), json.loads(document)) == ({"name": "\xe9\U0001f600"}, {"name": "\xe9"})
    assert written.isascii() == (encoding != "utf8")


def test_tables_are_always_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.table(("NAME", "SIZE"), [("a\x1b[2J\nb", "1 B")], right=(1,))
    out.deliver()
    assert capsys.readouterr().out == "NAME         SIZE\na\\x1b[2J\\nb   1 B\n"


def test_a_cell_widens_its_own_row_only(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    widths = out.table(("NAME", "SIZE"), [("a", "1 B"), ("\x01" * 1000, "2 B")], right=(1,))
    out.deliver()
    assert widths == [WIDEST, 4]
    rows = ["NAME".ljust(WIDEST) + "  SIZE", "a".ljust(WIDEST) + "   1 B", "\\x01" * 1000 + "   2 B"]
    assert capsys.readouterr().out.splitlines() == rows


def test_a_table_that_comes_in_parts(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    widths = out.table(("NAME", "SIZE"), [("long name", "1 B")], right=(1,))
    assert out.table(None, [("b", "10 B"), ("longer than that", "2 B")], right=(1,), widths=widths) == widths
    out.deliver()
    rows = ["NAME       SIZE", "long name   1 B", "b          10 B", "longer than that   2 B"]
    assert capsys.readouterr().out.splitlines() == rows


def test_quiet_leaves_errors_only(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(quiet=True)
    out.note("note")
    out.warn("warning")
    out.error("two\nlines")
    assert capsys.readouterr().err == "objstore: two\\nlines\n"


class TestJson:
    def test_one_record_per_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        out = Output(json=True)
        for name in ("a\nb", "ü"):
            out.record({"name": name})
        out.deliver()
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line) for line in lines] == [{"name": "a\nb"}, {"name": "ü"}]

    def test_standard_error_has_json_only(self, capsys: pytest.CaptureFixture[str]) -> None:
        out = Output(json=True)
        out.note("for people")
        out.warn("warning\x1b")
        out.error("text", CommandError("text", 4))
        out.error("text", ValueError(), 1)
        lines = capsys.readouterr().err.splitlines()
        assert [json.loads(line) for line in lines] == [
            {"warning": "warning\x1b"},
            {"error": "text", "kind": "CommandError", "exit_code": 4},
            {"error": "text", "kind": "ValueError", "exit_code": 1},
        ]
        assert "\x1b" not in lines[0]


class TestFlow:
    async def test_what_is_held_is_written_at_once(self, capfd: pytest.CaptureFixture[str]) -> None:
        out = Output()
        out.lines(["a", "b"])
        await out.flow()
        assert capfd.readouterr().out == "a\nb\n"
        await out.flow()
        out.deliver()
        assert capfd.readouterr().out == ""

    async def test_a_stream_without_a_descriptor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdout", stream := io.StringIO())
        out = Output()
        out.lines(["a"])
        await out.flow()
        assert stream.getvalue() == "a\n"

    async def test_a_reader_that_stops(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read, write = os.pipe()
        os.close(read)
        with open(write, "w") as pipe:
            monkeypatch.setattr(sys, "stdout", pipe)
            out = Output()
            out.lines(["a"])
            with pytest.raises(ReaderStopped) as stopped:
                await out.flow()
            assert stopped.value.code == 0
            out.lines(["b"])
            out.deliver()  # to nobody


class TestQuestions:
    def test_nobody_is_asked_off_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
        with pytest.raises(CommandError, match="rm: standard input is not a terminal: pass -f to x") as told:
            confirm("rm", "Really?", "x", "nothing")
        assert told.value.code == 2

    @pytest.mark.parametrize(("answer", "yes"), [("y", True), ("YES", True), ("", False), ("no", False)])
    def test_answers(self, monkeypatch: pytest.MonkeyPatch, answer: str, yes: bool) -> None:
        stdin = Terminal(f"{answer}\n")
        monkeypatch.setattr(sys, "stdin", stdin)
        if yes:
            confirm("rm", "Really?", "x", "nothing")
        else:
            with pytest.raises(CommandError, match="rm: nothing") as told:
                confirm("rm", "Really?", "x", "nothing")
            assert told.value.code == 1


class TestProgress:
    def test_only_on_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        assert Output().progress("x") is None

    @pytest.mark.parametrize("switch", [{"quiet": True}, {"progress": False}, {"json": True}])
    def test_switched_off(self, monkeypatch: pytest.MonkeyPatch, switch: dict[str, bool]) -> None:
        monkeypatch.setattr(sys, "stderr", Terminal())
        assert Output(**switch).progress("x") is None

    def test_small_transfers_show_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        show = Output().progress("x")
        assert show is not None
        show(1 << 20, 1 << 20)
        assert stream.getvalue() == ""

    def test_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tqdm", None)
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        out = Output()
        show = out.progress("na\x1bme")
        assert show is not None
        show(2 << 20, 2 << 20)
        assert "na\\x1bme  2.0 MiB of 2.0 MiB (100 %)" in stream.getvalue()
        out.note("done")
        assert stream.getvalue().endswith("\r\x1b[Kdone\n")
