import hashlib
import sys
from collections import deque
from datetime import UTC, datetime
from pickle import PickleBuffer

import pytest

from objstore.errors import DigestMismatchError, IntegrityError
from objstore.format.assembly import Assembly
from objstore.format.memory import BytesTarget
from objstore.format.models import ObjectInfo
from objstore.read.sinks import WholeSink

DATA = bytes(range(256)) * 4


def make_info(data=DATA, chunks=4, **kwargs):
    size = kwargs.get("size", len(data))
    digest = kwargs.get("digest", "SHA-256=" + hashlib.sha256(data).hexdigest())
    return ObjectInfo("n", None, None, size, chunks, digest, False, datetime.now(UTC), "N", "b")


def split(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


def test_whole_object_without_a_target():
    assembly = Assembly(make_info())
    for i, part in enumerate(split(DATA, 256)):
        assert not assembly.complete
        assembly.accept(part)
        assert (assembly.chunks, assembly.received) == (i + 1, (i + 1) * 256)
    assert assembly.complete
    assembly.finish()


def test_empty_object():
    assembly = Assembly(make_info(b"", 0))
    assert assembly.complete
    assembly.finish()
    assembly = Assembly(make_info(b"", 0))
    assembly.accept(b"")  # .NET stores one
    assembly.finish()
    assert Whole(make_info(b"", 0)).finish() == b""


@pytest.mark.parametrize("counted", [4, 5])
def test_trailing_empty_chunk_counted_or_not(counted):
    """T10: .NET ends objects of size % chunk == 0 with an empty chunk that it does not count."""
    assembly = Assembly(make_info(chunks=counted))
    for part in split(DATA, 256):
        assembly.accept(part)
    assert assembly.complete is (counted == 4)
    assembly.accept(b"")
    assert assembly.complete
    assembly.finish()


def test_empty_chunks_without_end():
    """Each would cost a round trip: one of them is the most that any writer adds."""
    assembly = Assembly(make_info())
    for part in split(DATA, 256):
        assembly.accept(part)
    assembly.accept(b"")
    with pytest.raises(IntegrityError, match="more than 4 chunks"):
        assembly.accept(b"")


def test_more_bytes_than_recorded_fail_at_once():
    assembly = Assembly(make_info(size=300, chunks=2))
    assembly.accept(DATA[:256])
    with pytest.raises(IntegrityError, match="more than 300"):
        assembly.accept(DATA[256:512])
    assert assembly.received == 256


@pytest.mark.parametrize("parts", [[], [DATA[:256]], [DATA[:1000]]])
def test_missing_bytes(parts):
    assembly = Assembly(make_info())
    for part in parts:
        assembly.accept(part)
    assert not assembly.complete
    with pytest.raises(IntegrityError, match="of 1024 bytes") as caught:
        assembly.finish()
    assert not isinstance(caught.value, DigestMismatchError)
    assert (caught.value.bucket, caught.value.name) == ("b", "n")


@pytest.mark.parametrize("counted", [3, 5])
def test_wrong_number_of_chunks(counted):
    assembly = Assembly(make_info(chunks=counted))
    for part in split(DATA, 256):
        assembly.accept(part)
    with pytest.raises(IntegrityError, match="chunks"):
        assembly.finish()


def test_wrong_bytes():
    assembly = Assembly(make_info())
    flipped = bytearray(DATA)
    flipped[700] ^= 1
    for part in split(bytes(flipped), 256):
        assembly.accept(part)
    assert assembly.complete
    with pytest.raises(DigestMismatchError) as caught:
        assembly.finish()
    assert caught.value.expected == make_info().digest
    assert caught.value.actual == "SHA-256=" + hashlib.sha256(flipped).hexdigest()


def test_swapped_chunks_are_wrong_bytes():
    one, two, three, four = split(DATA[::-1] + DATA, 512)
    info = make_info(DATA[::-1] + DATA)
    assembly = Assembly(info)
    for part in (one, three, two, four):
        assembly.accept(part)
    with pytest.raises(DigestMismatchError):
        assembly.finish()


@pytest.mark.parametrize("digest", ["", "MD5=abc", "SHA-256=short"])
def test_digest_that_cannot_be_checked_fails_before_any_byte(digest):
    with pytest.raises(DigestMismatchError, match="verify=False"):
        Assembly(make_info(digest=digest))


@pytest.mark.parametrize("digest", ["", "MD5=abc", "SHA-256=" + "00" * 32])
def test_unverified_reading_still_counts(digest):
    assembly = Assembly(make_info(digest=digest), verify=False)
    for part in split(DATA, 256):
        assembly.accept(part)
    assembly.finish()
    with pytest.raises(IntegrityError):
        assembly.accept(b"x")


class TestBytesTarget:
    def test_value_without_a_second_copy(self):
        target = BytesTarget(1 << 20)
        with target.slot(5, 3) as slot:
            slot[:] = b"abc"
        first = target.getvalue()
        assert type(first) is bytes
        assert first[:9] == b"\0\0\0\0\0abc\0"
        assert target.getvalue() is first

    def test_living_view_costs_a_copy_only(self):
        target = BytesTarget(8)
        slot = target.slot(0, 8)
        slot[:] = b"12345678"
        assert target.getvalue() == b"12345678"
        assert bytes(slot) == b"12345678"

    @pytest.mark.parametrize(("offset", "size"), [(-1, 2), (0, 9), (8, 1), (0, -1)])
    def test_range_checked(self, offset, size):
        with pytest.raises(ValueError):
            BytesTarget(8).slot(offset, size)


class Whole(WholeSink):
    """An object in memory, by frames: the place of each alone, without the slack behind it."""

    def __init__(self, info):
        super().__init__(info, verify=True, progress=None)

    def place(self, size):
        found = super().place(size)
        return found[0] if isinstance(found, tuple) else found


class Parser:
    """Places payloads of at least ``place_from`` bytes and delivers them ``lag`` frames later."""

    def __init__(self, assembly, place_from, lag):
        self.assembly, self.place_from, self.lag = assembly, place_from, lag
        self.queue = deque()
        self.placed = 0

    def frame(self, data):
        slot = self.assembly.place(len(data)) if len(data) >= self.place_from else None
        if slot is None:
            self.queue.append(data)
        else:
            self.placed += 1
            slot[:] = data
            self.queue.append(slot)
        del slot
        self.deliver(self.lag)

    def deliver(self, leave=0):
        while len(self.queue) > leave:
            self.assembly.accept(self.queue.popleft())


@pytest.mark.parametrize("lag", [0, 1, 2, 5, 100])
@pytest.mark.parametrize("place_from", [1, 50, 10_000])
@pytest.mark.parametrize(
    "sizes",
    [
        [100] * 10,
        [100] * 9 + [7],
        [7] + [100] * 9,
        [100, 7] * 5,
        [7, 7, 100, 100, 7, 100],
        [60, 10, 55, 49, 70, 1],
    ],
    ids=str,
)
def test_placed_payloads_end_at_their_offsets(sizes, place_from, lag):
    data = hashlib.shake_128(b"seed").digest(sum(sizes))
    assembly = Whole(make_info(data, len(sizes)))
    parser = Parser(assembly, place_from, lag)
    at = 0
    for size in sizes:
        parser.frame(data[at : at + size])
        at += size
    parser.deliver()
    assert assembly.complete
    assembly.finish()
    assert (parser.placed > 0) is (place_from < 100)
    first = assembly._target.getvalue()
    assert first == data
    assert assembly._target.getvalue() is first, "a view of the target was left alive"


def test_regular_objects_are_placed_throughout():
    data = DATA[:1000]
    assembly = Whole(make_info(data, 10))
    parser = Parser(assembly, 1, 3)
    for part in split(data, 100):
        parser.frame(part)
    parser.deliver()
    assembly.finish()
    assert parser.placed == 10


def test_accepted_payloads_of_the_caller_stay_usable():
    assembly = Whole(make_info())
    slot = assembly.place(256)
    mine = memoryview(DATA)[:256]
    slot[:] = DATA[256:512]
    assembly.accept(mine)  # came first, lies nowhere
    assembly.accept(slot)
    assert bytes(mine) == DATA[:256]
    for part in split(DATA[512:], 256):
        assembly.accept(memoryview(part))
    assembly.finish()
    del slot
    assert assembly._target.getvalue() == DATA


def test_no_place_beyond_the_object_or_for_nothing():
    assembly = Whole(make_info())
    assert assembly.place(0) is None
    assert assembly.place(1025) is None
    assert len(assembly.place(1000)) == 1000
    assert assembly.place(25) is None
    assert len(assembly.place(24)) == 24


def test_places_of_a_lost_consumer_are_forgotten():
    assembly = Whole(make_info())
    first, stale, staler = (assembly.place(256) for _ in range(3))
    first[:] = DATA[:256]
    stale[:] = b"\xff" * 256
    staler[:] = b"\xff" * 256
    assembly.accept(first)
    assembly.forget_places()
    for part in split(DATA[256:], 256):
        slot = assembly.place(256)
        slot[:] = part
        assembly.accept(slot)
    assembly.finish()
    assert assembly._target.getvalue() == DATA


@pytest.mark.parametrize("last", [False, True])
def test_a_frame_that_ends_after_it_was_given_up_overwrites_nothing(last):
    """The parser ran ahead: a slot lies where a payload belongs that was parsed before, accepted after it."""
    assembly = Whole(make_info())
    parts = split(DATA, 256)
    if last:
        while len(parts) > 1:
            assembly.accept(parts.pop(0))
    stale = assembly.place(256)
    assembly.accept(parts.pop(0))
    if not last:
        assembly.forget_places()
    stale[:] = b"\xff" * 256
    for part in parts:
        slot = assembly.place(256)
        slot[:] = part
        assembly.accept(slot)
    assembly.finish()
    assert assembly._target.getvalue() == DATA


def test_bytes_that_must_be_moved_survive_a_lost_consumer():
    assembly = Whole(make_info())
    slot, stale = assembly.place(256), assembly.place(256)
    slot[:] = DATA[100:356]
    stale[:] = b"\xff" * 256
    assembly.accept(DATA[:100])
    assembly.accept(slot)
    assembly.forget_places()
    assembly.accept(DATA[356:])
    with pytest.raises(IntegrityError, match="3 chunks"):
        assembly.finish()
    assert assembly._target.getvalue() == DATA


def test_view_of_a_placed_payload_is_tolerated():
    assembly = Whole(make_info(chunks=1))
    slot = assembly.place(1024)
    slot[:] = DATA
    pinned = PickleBuffer(slot)
    assembly.accept(slot)
    assembly.finish()
    assert assembly._target.getvalue() == DATA
    del pinned


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts memory")
def test_memory_is_one_object():
    import tracemalloc

    size = 8 << 20
    data = bytes(size)
    info = make_info(data, 8)
    tracemalloc.start()
    try:
        assembly = Whole(info)
        for part in range(8):
            slot = assembly.place(1 << 20)
            slot[:] = memoryview(data)[part << 20 : (part + 1) << 20]
            assembly.accept(slot)
        del slot
        assembly.finish()
        value = assembly._target.getvalue()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert value == data
    assert peak < size + (1 << 20)


def test_a_run_of_chunks():
    assembly = Assembly(make_info(chunks=6))
    assembly.accept_run(DATA[:300], 1, 1)
    assembly.accept_run(DATA[300:768], 2)
    assert (assembly.received, assembly.chunks, assembly.empty_chunks) == (768, 3, 1)
    assert not assembly.complete
    assembly.accept(b"")
    with pytest.raises(IntegrityError, match="more than 1024 bytes"):
        assembly.accept_run(DATA[768:] + b"x", 1)
    assembly.accept_run(DATA[768:], 1)
    assert assembly.complete
    assembly.finish()


def test_a_run_of_other_bytes():
    assembly = Assembly(make_info())
    assembly.accept_run(DATA[::-1], 4)
    with pytest.raises(DigestMismatchError):
        assembly.finish()
