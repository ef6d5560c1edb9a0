"""Globs: ``*`` and ``?`` match within one level, ``**`` also across ``/``, ``[…]`` one character of a set."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from .output import CommandError

_ESCAPES = ("[*]", "[?]", "[[]")
_TOKEN = re.compile(r"(\*\*+/)|(\*\*+)|(\*)|(\?)|(\[[!^]?\]?[^\]]*\])|(.)", re.DOTALL)

MOST_STEPS = 1_000_000
"""Steps that a regular expression may take for one name: it tries all divisions of it among the stars."""


def literal(text: str) -> str | None:
    """Return the only name that a text can mean, without its escapes ``[*]``, ``[?]``, ``[[]``; or None."""
    chars: list[str] = []
    for levels, everything, star, one, among, char in _TOKEN.findall(text):
        if levels or everything or star or one or (among and among not in _ESCAPES):
            return None
        chars.append(among[1:-1] or char)
    return "".join(chars)


def is_glob(text: str) -> bool:
    """Whether a text may mean several names."""
    return literal(text) is None


class _Token(NamedTuple):
    """A part of a glob.

    Attributes:
        regex: the same as a regular expression.
        star: ``"*"``, ``"**"`` or ``"**/"``; "" for what matches one character.
    """

    regex: str
    star: str = ""


def _tokens(pattern: str) -> list[_Token]:
    found: list[_Token] = []
    for levels, everything, star, one, among, char in _TOKEN.findall(pattern):
        if levels:
            found.append(_Token("(?:.*/)?", "**/"))
        elif everything:
            found.append(_Token(".*", "**"))
        elif star:
            found.append(_Token("[^/]*", "*"))
        elif one:
            found.append(_Token("[^/]"))
        elif among:
            inverted = among[1] in "!^"
            ends = re.findall(r"(.)(?:-(.))?", among[1 + inverted : -1], re.DOTALL)
            inside = "".join(_literal(first) + (f"-{_literal(last)}" if last else "") for first, last in ends)
            found.append(_Token(f"(?!/)[{'^' if inverted else ''}{inside}]"))
        else:
            found.append(_Token(re.escape(char)))
    return found


def _literal(char: str) -> str:
    """Return a character as it is written in a set."""
    return char if char.isalnum() else f"\\{char}"


def glob_matcher(pattern: str) -> Callable[[str], object]:
    """Return a function that says whether a whole name matches a glob.

    Others choose the names. A regular expression may take ages for a long one, so it is for the short ones.

    Raises:
        CommandError: a set such as ``[z-a]`` makes no sense; exit code 2.
    """
    tokens = _tokens(pattern)
    try:
        in_one_pass = _OnePass(tokens)
        quick = re.compile("".join(token.regex for token in tokens), re.DOTALL).fullmatch
    except re.error as exc:
        raise CommandError(f"{pattern!r} is not a valid pattern: {exc}", 2) from None
    stars = sum(bool(token.star) for token in tokens)
    return lambda name: quick(name) if len(name) ** stars <= MOST_STEPS else in_one_pass(name)


class _OnePass:
    """Matches in one pass over a name, with all ways to match its beginning at once.

    A state is twice the number of tokens that are matched, and one more inside of a ``**/``.
    """

    def __init__(self, tokens: list[_Token]) -> None:
        self._stars = [token.star for token in tokens]
        self._matches = [re.compile(token.regex, re.DOTALL).fullmatch for token in tokens]
        self._end = 2 * len(tokens)

    def __call__(self, name: str) -> bool:
        states = self._with_skipped({0})
        for char in name:
            following: set[int] = set()
            for state in states:
                if state < self._end:
                    following.update(self._after(state, char))
            states = self._with_skipped(following)
            if not states:
                return False
        return self._end in states

    def _after(self, state: int, char: str) -> tuple[int, ...]:
        at = state // 2
        star = self._stars[at]
        if star == "**/":
            return (2 * at + 1, 2 * at + 2) if char == "/" else (2 * at + 1,)
        if star:
            return (state,) if star == "**" or char != "/" else ()
        return (state + 2,) if self._matches[at](char) else ()

    def _with_skipped(self, states: set[int]) -> set[int]:
        """Add where a star ends: each may match nothing."""
        left = list(states)
        while left:
            state = left.pop()
            if not state & 1 and state < self._end and self._stars[state // 2] and state + 2 not in states:
                states.add(state + 2)
                left.append(state + 2)
        return states
