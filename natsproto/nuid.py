"""NUIDs: short unique names, 22 characters of ``[0-9A-Za-z]``; and names that nobody can guess.

The first 12 characters of a NUID are random from the operating system; the other 10 count up from a random
start in steps of a random size, so that names are unique within a process and cheap to make. Who sees two of
them knows the rest: they name what everybody may see (chunks of objects), and nothing else.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Callable
from itertools import count

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE = len(_DIGITS)
_PREFIX_LENGTH = 12
_SEQUENCE_LENGTH = 10
_LOW = _BASE**3
_SEQUENCES = _BASE**_SEQUENCE_LENGTH
_MIN_STEP, _MAX_STEP = 33, 333

_forks = 0  # how many forks lie between the first process and this one


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


def random_below(limit: int) -> int:
    """Return a uniform random number from 0 to ``limit - 1``.

    The same source as ``secrets.randbelow``, whose import would cost several milliseconds.
    """
    bits = limit.bit_length()
    size = (bits + 7) // 8
    while True:
        value = int.from_bytes(os.urandom(size), "big") >> (8 * size - bits)
        if value < limit:
            return value


def _digits(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, _BASE)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


class Nuid:
    """A source of NUIDs. Threads may share it, and a forked child starts with a new prefix.

    Args:
        rng: ``rng(n)`` returns a number from 0 to ``n - 1``; default: the operating system's randomness.
    """

    __slots__ = ("_head", "_rng", "_state")

    def __init__(self, rng: Callable[[int], int] = random_below) -> None:
        self._rng = rng
        self._state = self._seed()
        self._head = (-1, "", "")  # what all digits but the last three come to: it seldom changes

    def _seed(self) -> tuple[str, count[int], int]:
        prefix = "".join(_DIGITS[self._rng(_BASE)] for _ in range(_PREFIX_LENGTH))
        step = _MIN_STEP + self._rng(_MAX_STEP - _MIN_STEP)
        return prefix, count(self._rng(_SEQUENCES), step), _forks

    def next(self) -> str:
        """Return a new NUID."""
        while True:
            # One tuple, replaced as a whole, and a C-level counter: threads need no lock, and so none can
            # be held by another thread at the moment of a fork.
            prefix, sequence, forks = self._state
            if forks == _forks:
                number = next(sequence)
                if number < _SEQUENCES:
                    break
            self._state = self._seed()
        high, low = divmod(number, _LOW)
        head = self._head  # one tuple, too
        if head[0] != high or head[1] is not prefix:
            self._head = head = (high, prefix, prefix + _digits(high, _SEQUENCE_LENGTH - 3))
        rest, last = divmod(low, _BASE)
        first, middle = divmod(rest, _BASE)
        return f"{head[2]}{_DIGITS[first]}{_DIGITS[middle]}{_DIGITS[last]}"


_default = Nuid()


def next_nuid() -> str:
    """Return a new NUID from the process-wide source."""
    return _default.next()


def secret_name() -> str:
    """Return a new name that cannot be guessed: 128 random bits, 22 characters of ``[0-9A-Za-z_-]``.

    For inboxes, consumers and batches: whoever knows the name of one may write into it.
    """
    return urlsafe_b64encode(os.urandom(16))[:22].decode()
