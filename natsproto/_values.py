"""Text and bytes by value: what goes out is what they hold, not what a subclass makes of itself.

``class Header(str, Enum)`` formats as ``Header.NAME``, and any subclass may answer a check with one thing and
``format()``, ``encode()`` or ``len()`` with another. So whatever is given to become part of the protocol
passes here first, and only the result is checked and written.

Messages for people name rounded numbers: what is left of a time limit is no figure anybody gave.
"""

from __future__ import annotations


def text(value: str) -> str:
    """The characters of ``value`` as a plain ``str``; ``value`` itself when it is one."""
    return value if type(value) is str else str.__str__(value)


def seconds(value: float | None) -> str:
    """A number of seconds as messages name it: 14.999999 is ``15``."""
    if value is None:
        return "unbounded"
    return f"{value:.2g}" if 0 < value < 0.1 else f"{value:.2f}".rstrip("0").rstrip(".")


def raw(value: bytes) -> bytes:
    """The bytes of ``value`` as plain ``bytes``; ``value`` itself when it is that."""
    return value if type(value) is bytes else memoryview(value).tobytes()


def brief(name: str, most: int = 80) -> str:
    """A name as messages quote it: the beginning is enough, and others choose its length."""
    return repr(name) if len(name) <= most else f"{name[:most]!r}…"


def cut(text: str, most: int = 500) -> str:
    """A peer's words as messages repeat them: the beginning is enough of those that are megabytes long."""
    return text if len(text) <= most else f"{text[:most]}…"


def printable(text: str) -> str:
    """Return ``text`` on one line and without anything a terminal or the reader of a log would act on.

    Control characters, line and paragraph separators, direction marks, lone surrogates: all that is not
    printable is written as ``\\xNN`` or ``\\uNNNN``. Subjects, names and a server's texts are other people's.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )
