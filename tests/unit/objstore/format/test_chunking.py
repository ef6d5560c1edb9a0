import array

import pytest

from objstore.errors import BadObjectMetaError
from objstore.format.chunking import Chunker, requested_chunk_size, resolve_chunk_size
from objstore.format.models import ObjectMetaOptions


class TestResolve:
    @pytest.mark.parametrize(
        ("explicit", "max_payload", "size"),
        [
            (None, 1 << 20, 128 * 1024),
            (None, 4096, 4096),
            (None, 0, 128 * 1024),
            (1, 1 << 20, 1),
            (1 << 20, 1 << 20, 1 << 20),
            (1 << 20, 0, 1 << 20),
            (4096, 4096, 4096),
        ],
    )
    def test_accepted(self, explicit, max_payload, size):
        assert resolve_chunk_size(explicit, max_payload) == size

    @pytest.mark.parametrize(
        ("explicit", "max_payload"),
        [
            (0, 1 << 20),
            (-1, 1 << 20),
            ((1 << 20) + 1, 8 << 20),
            (4097, 4096),
            (True, 1 << 20),
            ("1", 1 << 20),
            (1.0, 9),
        ],
    )
    def test_refused(self, explicit, max_payload):
        with pytest.raises(BadObjectMetaError):
            resolve_chunk_size(explicit, max_payload)

    def test_what_options_ask_for(self):
        assert requested_chunk_size(None) is None
        assert requested_chunk_size(ObjectMetaOptions()) is None
        assert requested_chunk_size(ObjectMetaOptions(max_chunk_size=7)) == 7
        assert requested_chunk_size(ObjectMetaOptions(chunk_size=9, max_chunk_size=7)) == 9
        assert requested_chunk_size(ObjectMetaOptions(chunk_size=0)) == 0


def chunks_of(pieces, size, **kwargs):
    chunker = Chunker(size, **kwargs)
    chunks = []
    for piece in pieces:
        chunks += chunker.push(piece)
    last = chunker.finish()
    assert chunker.finish() is None
    assert chunker.held == 0
    return chunks + ([] if last is None else [last])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 10, 11, 100])
@pytest.mark.parametrize(
    "cuts", [[10], [5, 5], [1] * 10, [3, 7], [7, 3], [9, 1], [1, 9], [0, 10, 0], [4, 0, 4, 2]], ids=str
)
def test_every_chunk_but_the_last_is_full(size, cuts):
    data = b"0123456789"
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    chunks = [bytes(chunk) for chunk in chunks_of(pieces, size)]
    assert chunks == [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b""]])
def test_nothing_gives_no_chunk(pieces):
    assert chunks_of(pieces, 4) == []


def test_whole_buffer_is_not_copied():
    data = bytes(1000)
    chunks = chunks_of([data], 300)
    assert [len(chunk) for chunk in chunks] == [300, 300, 300, 100]
    assert all(chunk.obj is data for chunk in chunks)


def test_only_the_seams_of_large_pieces_are_copied():
    first, second = bytes(250), bytes(250)
    chunks = chunks_of([first, second], 100)
    assert [chunk.obj is first for chunk in chunks] == [True, True, False, False, False]
    assert [chunk.obj is second for chunk in chunks] == [False, False, False, True, True]


def test_buffers_handed_out_are_never_written_again():
    """T20: a pooled buffer that is refilled while a publish is pending corrupts the object."""
    chunker = Chunker(4)
    handed_out = []
    for i in range(100):
        handed_out += [(chunk, bytes(chunk)) for chunk in chunker.push(bytes([i]) * 3)]
    assert len({id(chunk.obj) for chunk, _ in handed_out}) == len(handed_out)
    assert all(chunk == copy for chunk, copy in handed_out)


def test_push_takes_the_piece_even_if_the_chunks_are_iterated_later():
    chunker = Chunker(2)
    first = chunker.push(b"abcde")
    assert chunker.held == 1
    second = chunker.push(b"f")
    assert [bytes(c) for c in first] == [b"ab", b"cd"]
    assert [bytes(c) for c in second] == [b"ef"]


def test_mutable_pieces_pass_through_uncopied_unless_told():
    buffer = bytearray(b"abcd")
    (chunk,) = chunks_of([buffer], 4)
    buffer[0] = ord("X")
    assert bytes(chunk) == b"Xbcd"
    (chunk,) = chunks_of([memoryview(buffer)], 4, copy=True)
    buffer[0] = ord("a")
    assert bytes(chunk) == b"Xbcd"


def test_source_that_refills_its_buffer():
    buffer = bytearray(3)

    def source():
        for i in range(5):
            buffer[:] = bytes([65 + i]) * 3
            yield memoryview(buffer)

    assert b"".join(chunks_of(source(), 4, copy=True)) == b"AAABBBCCCDDDEEE"


def test_other_buffers():
    numbers = array.array("I", [1, 2, 3])
    assert b"".join(chunks_of([numbers], 5)) == numbers.tobytes()
    strided = memoryview(b"a-b-c-")[::2]
    assert b"".join(chunks_of([strided], 2)) == b"abc"
    assert b"".join(chunks_of([memoryview(b"abcdef").cast("B", (2, 3))], 4)) == b"abcdef"


@pytest.mark.parametrize("piece", ["text", 5, None, [1, 2]])
def test_wrong_types(piece):
    with pytest.raises(TypeError):
        Chunker(4).push(piece)


def test_str_is_told_what_to_do():
    with pytest.raises(TypeError, match=r"\.encode\(\).*put_file"):
        Chunker(4).push("text")


def test_chunk_size_must_be_positive():
    with pytest.raises(BadObjectMetaError):
        Chunker(0)
