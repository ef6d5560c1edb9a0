"""The one rule of addressing: ``BUCKET NAME…``, or ``natsobj://BUCKET/NAME`` where a file could stand, too.

The name in an address is everything after the bucket's slash, as it is: nothing is decoded, and ``?``, ``#``
and ``%`` are characters like any other. An address without a name, ``natsobj://BUCKET``, is the whole bucket;
one that ends in a slash is a directory: all names that begin like this.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from .output import CommandError

SCHEME = "natsobj://"

_BUCKET = re.compile(r"[a-zA-Z0-9_-]+")  # as objstore.format.naming, which is not imported for it


class AddressError(CommandError):
    """An address or its place makes no sense; exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 2)


class Address(NamedTuple):
    """An object, a directory (the name ends in a slash), or a bucket (the name is empty)."""

    bucket: str
    name: str

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory or a bucket, and not an object."""
        return not self.name or self.name.endswith("/")

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.name}"


def is_address(text: str) -> bool:
    """Whether an argument is meant as an address, and not as a file's path."""
    return text[: len(SCHEME)].lower() == SCHEME


def is_bucket_name(text: str) -> bool:
    """Whether a bucket could have this name."""
    return _BUCKET.fullmatch(text) is not None


def parse_address(text: str) -> Address:
    """Parse ``natsobj://BUCKET`` or ``natsobj://BUCKET/NAME``.

    Raises:
        AddressError: it has another scheme, or no valid bucket.
    """
    if not is_address(text):
        scheme, mark, _ = text.partition("://")
        other = f"{scheme}:// is another store" if mark else "it has no scheme"
        raise AddressError(f"{text!r} is no address: {other}; write {SCHEME}BUCKET/NAME")
    bucket, _, name = text[len(SCHEME) :].partition("/")
    if not is_bucket_name(bucket):
        what = f"{bucket!r} cannot be a bucket's name" if bucket else "the bucket is missing"
        raise AddressError(f"address {text!r}: {what}; write {SCHEME}BUCKET/NAME")
    return Address(bucket, name)


def parse_place(text: str) -> Address | str:
    """Return an address, or the path of a file as it is; ``-`` and ``./natsobj:…`` are paths.

    Raises:
        AddressError: the address is not valid, or it is one of another store, such as ``s3://…``.
    """
    if is_address(text):
        return parse_address(text)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", text) and not os.path.lexists(text):
        raise AddressError(f"{text!r} is no path, and no address of an object: write {SCHEME}BUCKET/NAME")
    return text


def parse_targets(command: str, words: Sequence[str], *, literal: bool | None = None) -> list[Address]:
    """Return the objects that ``BUCKET NAME…`` or ``natsobj://BUCKET/NAME…`` mean.

    Args:
        literal: what follows a bucket is a name, even if it looks like an address.

    Raises:
        AddressError: both ways are mixed; a name is missing; the bucket does not come first.
    """
    if is_address(words[0]):
        odd = [word for word in words if not is_address(word)]
        if odd:
            raise AddressError(f"{command}: {odd[0]!r} stands beside addresses: write {SCHEME}BUCKET/NAME")
        return [parse_address(word) for word in words]
    bucket, *names = words
    odd = [name for name in names if is_address(name)]
    if odd and not literal:
        raise AddressError(f"{command}: {odd[0]!r} has its own bucket: omit {bucket!r}")
    check_bucket_first(command, bucket, names)
    if not names:
        raise AddressError(f"{command}: name an object: {command} BUCKET NAME, or {SCHEME}BUCKET/NAME")
    return [Address(bucket, name) for name in names]


def check_bucket_first(command: str, bucket: str, others: Sequence[str], *, files: bool = False) -> None:
    """Notice that the bucket is not the first argument, as far as that is visible without a server.

    Args:
        files: the others are files, not names of objects.

    Raises:
        AddressError: the arguments are swapped, or one is empty.
    """
    if not others:
        return
    if "" in others:  # as an empty variable leaves it
        raise AddressError(f"{command}: the name of {'a file' if files else 'an object'} is empty")
    last = others[-1]
    swapped = f"the bucket comes first: objstore {command} {last} {bucket}"
    if not is_bucket_name(bucket) and is_bucket_name(last) and not (files and os.path.lexists(last)):
        raise AddressError(f"{command}: {bucket!r} cannot be a bucket's name: {swapped}")
    if files and last != "-" and os.path.isfile(bucket) and not os.path.lexists(last):
        raise AddressError(f"{command}: {bucket!r} is a file, and {last!r} is none: {swapped}")
