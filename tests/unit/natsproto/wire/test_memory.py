"""Memory that becomes ``bytes``: nobody can change it afterwards, the collector may take it in any order."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

import natsproto
from natsproto.wire import Parser
from natsproto.wire import memory as room_module
from natsproto.wire.memory import Room
from support.skips import left_out


@pytest.fixture(params=["in place", "copied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to make one: where ``bytes`` can be written to, and where not."""
    if request.param == "copied":
        monkeypatch.setattr(room_module, "_writable", lambda: None)
    elif room_module._writable() is None:
        left_out("this Python cannot write to new bytes")
    return request.param


@pytest.mark.parametrize("size", [0, 1, 2, 3, 255, 4096, 1 << 20])
def test_content(way: str, size: int) -> None:
    room = Room(size)
    view = room.view
    assert (view.format, view.ndim, view.nbytes, view.readonly) == ("B", 1, size, False)
    assert bytes(view) == bytes(size)
    with view[size // 2 :] as half:
        half[:] = b"x" * len(half)
    value = room.getvalue()
    assert type(value) is bytes
    assert value == bytes(size // 2) + b"x" * (size - size // 2)
    assert room.getvalue() is value
    with pytest.raises(ValueError, match="released"):
        view[:] = bytes(size)
    assert (bytes(0), bytes(1), bytes([120])) == (b"", b"\0", b"x")  # those that CPython shares are untouched


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_who_still_has_a_view_changes_nothing(way: str, size: int) -> None:
    room = Room(size)
    late = room.view[:size]
    late[:] = b"a" * size
    value = room.getvalue()
    late[:] = b"b" * size
    assert value == b"a" * size
    assert hash(value) == hash(b"a" * size)


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_a_view_outlives_the_room(way: str, size: int) -> None:
    room = Room(size)
    slot = room.view[:size]
    room.release()
    room.release()
    del room
    gc.collect()
    slot[:] = b"c" * size
    assert bytes(slot) == b"c" * size


def test_no_second_copy_and_nothing_left() -> None:
    import tracemalloc

    size = 8 << 20
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        room = Room(size)
        with room.view[: size // 2] as slot:
            slot[:] = bytes(size // 2)
        value = room.getvalue()
        peak = tracemalloc.get_traced_memory()[1] - before
        del room, slot, value
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    copies = 1 if room_module._writable() is not None else 2
    assert peak < (copies + 0.6) * size  # the half that is written is copied from one
    assert left < 100_000


def test_more_than_there_is() -> None:
    with pytest.raises(MemoryError):
        Room(1 << 50)


@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_payloads_of_a_parser(way: str, size: int) -> None:
    """One too large for its own buffer, without a place: in pieces, by both ways to give them."""
    payload = bytes(range(250)) * (size // 250)
    frame = b"MSG a 1 %d\r\n%b\r\nPING\r\n" % (size, payload)
    fed, named = Parser(), Parser()
    first = [event for at in range(0, len(frame), 30_011) for event in fed.feed(frame[at : at + 30_011])]
    at, second = 0, []
    while at < len(frame):
        place = named.get_buffer()
        count = min(len(place), len(frame) - at)
        place[:count] = frame[at : at + count]
        second += named.buffer_updated(count)
        at += count
    for events in (first, second):
        assert len(events) == 2
        assert type(events[0].payload) is bytes
        assert events[0].payload == payload


def test_nobody_makes_views_that_the_collector_minds() -> None:
    """The rule of natsproto/wire/memory.py, everywhere."""
    packages = [Path(natsproto.__file__).parent, Path(natsproto.__file__).parent.parent / "objstore"]
    found = [
        f"{path}: {line.strip()}"
        for package in packages
        for path in sorted(package.rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        if "getbuffer()" in line and "``BytesIO.getbuffer()``" not in line
    ]
    assert found == []


HOLDERS = {
    "room": """
        from natsproto.wire.memory import Room
        room = Room(1000)
        held = [room, room.view[10:20], room.view]
    """,
    "slice": """
        from natsproto.wire.memory import Room
        held = [Room(1000).view[10:20]]
    """,
    "parser": """
        from natsproto.wire import Parser
        parser = Parser()
        parser.feed(b"MSG a 1 1000000\\r\\n" + bytes(5000))
        held = [parser, parser.get_buffer()]
    """,
    "place": """
        from natsproto.wire import Parser
        from objstore.format.memory import BytesTarget
        target = BytesTarget(10_000)
        def place(msg, size):
            return target.slot(0, size), target.slot(0, size + 100)
        parser = Parser(place=place)
        parser.feed(b"MSG a 1 8000\\r\\n" + bytes(5000))
        held = [parser, parser.get_buffer(), parser._pending]
    """,
    "target": """
        from objstore.format.memory import BytesTarget
        target = BytesTarget(9_000_000, lambda: 0.0)
        held = [target, target.slot(0, 10)]
        target.renew(5)
        held.append(target.slot(5, 10))
    """,
    "places": """
        from objstore.format.memory import BytesTarget
        from objstore.format.memory import Places
        places = Places(BytesTarget(10_000))
        held = [places, places.place(100), places.place(100), places.place_with_room()]
        places.store(b"first")
        places.store(held[1])
    """,
    "whole": """
        from objstore.read.sinks import WholeSink
        sink = WholeSink(info, verify=True, progress=None)
        sink.reserve()
        held = [sink, sink.place(5000), sink.place(4000)]
        sink.accept(held[1][0])
    """,
    "blocks": """
        from objstore.read.sinks import BlockSink
        from objstore.format.assembly import Assembly
        sink = BlockSink(info, Assembly(info))
        held = [sink, sink.place(5000), sink.place(4000)]
        sink.accept(held[1][0])
    """,
    "range": """
        from objstore.read.ranges import Layout, RangeSink
        layout = Layout(info)
        sink = RangeSink(layout, layout.part(100, 9000), 100, 9000)
        held = [sink, sink.place(4000)]
    """,
}

CODE = """
import gc, sys
from datetime import datetime, timezone
from objstore import ObjectInfo
ignored = []
sys.unraisablehook = lambda unraisable: ignored.append(repr(unraisable.exc_value))
digest = "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="
info = ObjectInfo("a", None, None, 10_000, 3, digest, False, datetime.now(timezone.utc), "n", "b")
def use():
{body}
    held.append(held)
    error = ValueError()
    error.held, error.again = held, error
    try:
        raise error  # its traceback has this frame, and with it all of the above
    except ValueError:
        pass
for turn in range(3):
    use()
    gc.collect()
print(ignored)
"""


@pytest.mark.parametrize("holder", HOLDERS)
def test_dead_cycles(holder: str) -> None:
    """In a process of its own: what must not happen is a crash, or a word on standard error."""
    body = "\n".join(line[4:] for line in HOLDERS[holder].splitlines())
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", CODE.replace("{body}", body)],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
