"""``BUCKET NAME…`` and ``natsobj://bucket/name``."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objstore.cli.addresses import (
    Address,
    AddressError,
    check_bucket_first,
    is_address,
    is_bucket_name,
    parse_address,
    parse_place,
    parse_targets,
)
from objstore.errors import BadBucketError
from objstore.format.naming import check_bucket


@pytest.mark.parametrize(
    ("text", "bucket", "name"),
    [
        ("natsobj://b/n", "b", "n"),
        ("natsobj://b/a/n", "b", "a/n"),
        ("natsobj://b/a/", "b", "a/"),
        ("natsobj://b", "b", ""),
        ("natsobj://b/", "b", ""),
        ("NatsObj://B/N", "B", "N"),
        ("natsobj://b//n", "b", "/n"),
        ("natsobj://b/50%25?x#y z", "b", "50%25?x#y z"),
        ("natsobj://b/../x", "b", "../x"),
    ],
)
def test_addresses(text: str, bucket: str, name: str) -> None:
    found = parse_address(text)
    assert found == (bucket, name)
    assert found.is_directory == (name in ("", "a/"))
    assert parse_place(text) == found


@given(st.from_regex(r"[a-zA-Z0-9_-]+", fullmatch=True), st.text())
def test_an_address_is_its_text(bucket: str, name: str) -> None:
    assert parse_address(str(Address(bucket, name))) == (bucket, name)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("natsobj://", "the bucket is missing"),
        ("natsobj:///n", "the bucket is missing"),
        ("natsobj://a.b/n", "'a.b' cannot be a bucket's name"),
        ("natsobj://u@b/n", "cannot be a bucket's name"),
        ("s3://b/n", "s3:// is another store"),
        ("b/n", "it has no scheme"),
    ],
)
def test_refused_addresses(text: str, why: str) -> None:
    with pytest.raises(AddressError, match=why) as told:
        parse_address(text)
    assert told.value.code == 2
    assert "natsobj://BUCKET/NAME" in str(told.value)


def test_places_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("f", "dir/f", "-", "", "./natsobj://b", "C:/x"):
        assert parse_place(text) == text
        assert not is_address(text)
    with pytest.raises(AddressError, match="no path, and no address of an object"):
        parse_place("s3://b/n")
    Path("s3:").mkdir()
    Path("s3:/f").touch()
    assert parse_place("s3://f") == "s3://f"


def test_targets() -> None:
    assert parse_targets("cat", ["b", "n", "a/m"]) == [("b", "n"), ("b", "a/m")]
    assert parse_targets("rm", ["b", "natsobj://c/m"], literal=True) == [("b", "natsobj://c/m")]
    assert parse_targets("cat", ["natsobj://b/n", "natsobj://c/m"]) == [("b", "n"), ("c", "m")]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["b"], "name an object: cat BUCKET NAME, or natsobj://BUCKET/NAME"),
        (["b", "natsobj://b/n"], "has its own bucket: omit 'b'"),
        (["natsobj://b/n", "m"], "'m' stands beside addresses"),
        (["a.txt", "b"], "the bucket comes first: objstore cat b a.txt"),
        (["b", ""], "the name of an object is empty"),
        (["b", "a", ""], "the name of an object is empty"),
    ],
)
def test_refused_targets(words: list[str], why: str) -> None:
    with pytest.raises(AddressError, match=why):
        parse_targets("cat", words)


def test_the_bucket_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("report").touch()
    Path("media").touch()
    for words in (("media", "report"), ("b", "-"), ("b", "missing"), ("a.b", "media")):
        check_bucket_first("put", words[0], words[1:], files=True)
    check_bucket_first("ls", "a.b", [])
    check_bucket_first("get", "b", ["a.b"])
    for bucket, other in (("report", "photos"), ("report.pdf", "photos")):
        with pytest.raises(AddressError, match=f"objstore put photos {bucket}"):
            check_bucket_first("put", bucket, [other], files=True)


@pytest.mark.parametrize("text", ["b", "B-1_", "", "a.b", "a b", "ü", "a/b", "b\n"])
def test_names_of_buckets_are_those_of_the_store(text: str) -> None:
    try:
        check_bucket(text)
    except BadBucketError:
        assert not is_bucket_name(text)
    else:
        assert is_bucket_name(text)
