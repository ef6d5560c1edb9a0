import base64
import hashlib

import pytest

from objstore.format import digest

RAW = bytes(range(224, 256))  # its base64 holds both "-" and "_"
HEX = "SHA-256=" + RAW.hex()
WIRE = "SHA-256=" + base64.urlsafe_b64encode(RAW).decode()


def test_both_forms():
    assert digest.hex_digest(RAW) == HEX
    assert digest.wire_digest(RAW) == WIRE
    assert WIRE.endswith("=")
    assert "_" in WIRE
    assert digest.to_hex(WIRE) == HEX
    assert digest.to_wire(HEX) == WIRE
    hasher = digest.new_hasher()
    hasher.update(b"x")
    assert digest.hex_digest(hasher.digest()) == "SHA-256=" + hashlib.sha256(b"x").hexdigest()


def test_empty_object():
    assert (
        digest.wire_digest(digest.new_hasher().digest())
        == "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="
    )


@pytest.mark.parametrize(
    "text",
    [
        HEX,
        WIRE,
        WIRE.rstrip("="),
        "sha-256=" + WIRE[8:],
        "Sha-256=" + WIRE[8:].rstrip("="),
        "SHA-256=" + base64.b64encode(RAW).decode(),
        "SHA-256=" + base64.b64encode(RAW).decode().rstrip("="),
        "SHA-256=" + RAW.hex().upper(),
    ],
)
def test_read_in_every_form_written_by_anyone(text):
    assert digest.parse_digest(text) == RAW


@pytest.mark.parametrize(
    "text",
    ["", "SHA-256", "SHA-256=", "MD5=" + WIRE[8:], "SHA-512=" + WIRE[8:], WIRE[8:], "SHA-256=!!", WIRE[:-3],
     WIRE + "AAAA", "SHA-256=" + "z" * 64, "SHA-256=ä"],
)  # fmt: skip
def test_refused_but_kept_as_it_is(text):
    with pytest.raises(ValueError):
        digest.parse_digest(text)
    assert digest.to_hex(text) == text
    assert digest.to_wire(text) == text
