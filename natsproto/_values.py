"""Text and bytes by value: what is sent is their content, not what a subclass makes of it.

``class Header(str, Enum)`` formats as ``Header.NAME``, and any subclass may return one thing to a check and
another one to ``format()``, ``encode()`` or ``len()``. So every value that becomes part of the protocol is
converted here first, and only the result is checked and written.

Messages for people have rounded numbers: nobody chose the exact rest of a time limit.
"""

from __future__ import annotations


def text(value: str) -> str:
    """Return the characters of ``value`` as a plain ``str``; ``value`` itself when it is one."""
    return value if type(value) is str else str.__str__(value)


def seconds(value: float | None) -> str:
    """Return a number of seconds for a message: 14.999999 is ``15``."""
    if value is None:
        return "unbounded"
    return f"{value:.2g}" if 0 < value < 0.1 else f"{value:.2f}".rstrip("0").rstrip(".")


def raw(value: bytes) -> bytes:
    """Return the bytes of ``value`` as plain ``bytes``; ``value`` itself when it is that."""
    return value if type(value) is bytes else memoryview(value).tobytes()


def brief(name: str, most: int = 80) -> str:
    """Return a name quoted for a message, cut to its beginning: others choose its length."""
    begin = _beginning(name, most)
    return repr(name) if len(begin) == len(name) else f"{begin!r}…"


def cut(text: str, most: int = 500) -> str:
    """Return a peer's text for a message, cut to its beginning: it may be megabytes long.

    At most ``most`` characters are left as :func:`printable` shows them: an escape is up to ten.
    """
    begin = _beginning(text, most)
    return text if len(begin) == len(text) else f"{begin}…"


def _beginning(text: str, most: int) -> str:
    begin = text[:most]
    if begin.isprintable():
        return begin
    room = most
    for position, char in enumerate(begin):
        room -= len(printable(char))
        if room < 0:
            return begin[:position]
    return begin


def printable(text: str) -> str:
    """Return ``text`` on one line, without anything that a terminal or a log viewer would act on.

    Control characters, line and paragraph separators, direction marks, lone surrogates: all that is not
    printable becomes ``\\xNN`` or ``\\uNNNN``. Others choose subjects, names and a server's texts.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )
