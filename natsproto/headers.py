"""Message headers (ADR-4): a block of ``Name: value`` lines after a version line.

::

    NATS/1.0[ status[ description]]CRLF
    Name: valueCRLF …
    CRLF

Names keep their case, may repeat, and keep their order. Any peer can send a malformed block, so the user of a
message calls :func:`parse_headers`, not the connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import ClassVar

from . import _values
from .errors import LocalProtocolError, RemoteProtocolError

VERSION = b"NATS/1.0"
_OWS = b" \t"
_NAME_CHARS = frozenset(map(chr, range(0x21, 0x7F))) - {":"}  # ADR-4: printable ASCII except the colon

_FEW = 8  # headers that are searched one by one, which costs less than making the table

Pair = tuple[str, str]
HeaderValue = str | Sequence[str]
HeaderSource = Mapping[str, HeaderValue] | Iterable[tuple[str, HeaderValue]]


class _Received(list[Pair]):
    """Pairs as received, which need no checks."""


class Headers(MutableMapping[str, str]):
    """Header names and values: several values per name; order and case are kept, look-ups ignore case.

    As a mapping it shows the first value of each name; :meth:`get_all` and :meth:`multi_items` show all.

    Args:
        source: a mapping or pairs; a value is a ``str`` or a sequence of ``str``.

    Example::

        >>> h = Headers({"Nats-Msg-Id": "1", "tag": ["a", "b"]})
        >>> h["nats-msg-id"], h.get_all("Tag")
        ('1', ['a', 'b'])
    """

    # Any peer may send 20 000 names, so every access must cost the same however many there are. A table, made
    # when first needed, maps names to positions, and positions are stable: a deleted header leaves a hole,
    # several new values become a list at the position of the first. When most are holes, they are removed.
    __slots__ = ("_holes", "_items", "_positions")

    def __init__(self, source: HeaderSource | None = None) -> None:
        self._positions: dict[str, list[int]] | None = None  # by name in lower case
        self._holes = 0
        if type(source) is _Received:  # first: to look into an abstract class takes longer than the rest
            self._items: list[Pair | list[Pair] | None] = [*source]
            return
        self._items = []
        if source is None:
            return
        if isinstance(source, Headers):
            self._items += source.multi_items()
            return
        for name, value in source.items() if isinstance(source, Mapping) else source:
            for item in [value] if isinstance(value, str) else value:
                self.add(name, item)

    def _table(self) -> dict[str, list[int]]:
        table = self._positions
        if table is None:
            table = self._positions = {}
            for position, pair in enumerate(self.multi_items()):
                table.setdefault(pair[0].lower(), []).append(position)
        return table

    def _at(self, position: int) -> list[Pair]:
        item = self._items[position]
        if item is None:
            return []
        return item if type(item) is list else [item]  # type: ignore[list-item]

    def _empty(self, positions: list[int]) -> None:
        for position in positions:
            self._items[position] = None
        self._holes += len(positions)
        if self._holes > len(self._items) // 2:
            self._items = [*self.multi_items()]
            self._positions = None
            self._holes = 0

    def _find(self, name: str) -> Sequence[int]:
        """Return the positions of a name."""
        wanted = _values.text(name).lower()
        if self._positions is None and len(self._items) <= _FEW:
            return [position for position, (key, _) in enumerate(self.multi_items()) if key.lower() == wanted]
        return self._table().get(wanted, ())

    def __getitem__(self, name: str) -> str:
        positions = self._find(name)
        if not positions:
            raise KeyError(name)
        return self._at(positions[0])[0][1]

    def __setitem__(self, name: str, value: HeaderValue) -> None:
        """Replace all values of ``name``; the first one keeps its position."""
        pairs = [_pair(name, item) for item in ([value] if isinstance(value, str) else value)]
        table = self._table()
        lower = _values.text(name).lower()
        positions = table.get(lower)
        if positions is None:
            for pair in pairs:
                self._append(pair)
        elif not pairs:
            del self[name]
        else:
            self._items[positions[0]] = pairs[0] if len(pairs) == 1 else pairs
            table[lower] = positions[:1]
            self._empty(positions[1:])

    def __delitem__(self, name: str) -> None:
        positions = self._table().pop(_values.text(name).lower(), None)
        if positions is None:
            raise KeyError(name)
        self._empty(positions)

    def __iter__(self) -> Iterator[str]:
        return iter([self._at(positions[0])[0][0] for positions in self._table().values()])

    def __len__(self) -> int:
        return len(self._table())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self._find(name))

    def __eq__(self, other: object) -> bool:
        """Whether the same names (case ignored) have the same values in the same order."""
        if isinstance(other, Mapping):
            try:
                return self._by_name() == Headers(other)._by_name()
            except TypeError:
                return False
        return NotImplemented

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Headers({self.multi_items()!r})"

    def __reduce__(self) -> tuple[type[Headers], tuple[list[Pair]]]:
        return Headers, (self.multi_items(),)

    def _by_name(self) -> dict[str, list[str]]:
        return {name: self._at_all(positions) for name, positions in self._table().items()}

    def _at_all(self, positions: Iterable[int]) -> list[str]:
        return [value for position in positions for _, value in self._at(position)]

    def add(self, name: str, value: str) -> None:
        """Add another value for ``name``."""
        self._append(_pair(name, value))

    def _append(self, pair: Pair) -> None:
        if self._positions is not None:
            self._positions.setdefault(pair[0].lower(), []).append(len(self._items))
        self._items.append(pair)

    def popitem(self) -> Pair:
        """Remove the last name with all its values; return it and the first value."""
        try:
            name = next(reversed(self._table()))
        except StopIteration:
            raise KeyError("there are no headers") from None
        pair = self._at(self._table()[name][0])[0]
        del self[name]
        return pair

    def clear(self) -> None:
        """Remove everything."""
        self._items, self._positions, self._holes = [], None, 0

    def get_all(self, name: str) -> list[str]:
        """Return all values of ``name`` in order; an empty list if there is none."""
        return self._at_all(self._find(name))

    def multi_items(self) -> list[tuple[str, str]]:
        """Return all ``(name, value)`` pairs in order, with names in their original case."""
        if self._positions is None:
            return self._items.copy()  # type: ignore[return-value]  # neither holes nor lists yet
        return [pair for position in range(len(self._items)) for pair in self._at(position)]

    def to_dict(self) -> dict[str, list[str]]:
        """Return ``{name: [value, …]}``, which ``json.dumps`` takes; names keep their first spelling."""
        return {self._at(positions[0])[0][0]: self._at_all(positions) for positions in self._table().values()}

    def copy(self) -> Headers:
        """Return an independent copy."""
        return Headers(self)


def _pair(name: str, value: str) -> Pair:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError("header names and values are str")
    return _values.text(name), _values.text(value)


class ParsedHeaders:
    """The content of a header block.

    Attributes:
        headers: names and values.
        status: the number on the version line, or ``None``.
        description: the text after it, or ``""``.
    """

    __slots__ = ("description", "headers", "status")

    def __init__(self, headers: Headers, status: int | None = None, description: str = "") -> None:
        self.headers: Headers = headers
        self.status: int | None = status
        self.description: str = description

    def __repr__(self) -> str:
        return f"ParsedHeaders({self.headers!r}, status={self.status}, description={self.description!r})"


def encode_headers(
    headers: HeaderSource | Headers, *, status: int | None = None, description: str = ""
) -> bytes:
    """Return the whole header block, from the version line to the final empty line.

    Text from :func:`parse_headers` is written as the same bytes (``surrogateescape``). White space around a
    value is written, but parsing drops it.

    Args:
        headers: names and values; a value is a ``str`` or a sequence of ``str``.
        status: three-digit number for the version line (servers only).
        description: text after the status.

    Raises:
        LocalProtocolError: a name is empty, has a colon or anything but printable ASCII; a value or the
            description has CR, LF or NUL; the status is not 100 to 999.
    """
    first = VERSION.decode()
    if status is not None:
        if not 100 <= status <= 999:
            raise LocalProtocolError(f"a status has three digits, not {status}")
        first += f" {int.__repr__(status)}"
        if description:
            first += f" {_checked_value(_values.text(description), 'description')}"
    elif description:
        raise LocalProtocolError("a description needs a status")
    lines = [first]
    items = headers if isinstance(headers, Headers) else Headers(headers)
    for name, value in items.multi_items():
        if not name or not _NAME_CHARS.issuperset(name):
            raise LocalProtocolError(f"not a header name: {name!r}")
        lines.append(f"{name}: {_checked_value(value, name)}")
    lines.append("\r\n")
    try:
        return "\r\n".join(lines).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise LocalProtocolError("a header value cannot be encoded as UTF-8") from None


def _checked_value(value: str, name: str) -> str:
    if "\r" in value or "\n" in value or "\0" in value:
        raise LocalProtocolError(f"CR, LF or NUL in the value of header {name!r}")
    return value


def parse_headers(block: bytes) -> ParsedHeaders:
    """Parse a received header block. Bytes that are not UTF-8 decode with ``surrogateescape``.

    As in nats.go, lines with an empty name are skipped and white space around values is dropped.

    Raises:
        RemoteProtocolError: no ``NATS/1.0`` line, no final empty line, a line without a colon, or
            something after the version that is not a three-digit status and a description.
    """
    if not block.startswith(VERSION):
        raise RemoteProtocolError("header block does not start with NATS/1.0")
    # Decoded as a whole, which costs less: an ASCII character is never part of what cannot be decoded.
    lines = _decode(block).split("\r\n")
    try:
        end = lines.index("")
    except ValueError:
        end = len(lines)
    if end >= len(lines) - 1:  # the last item is what follows the last CRLF
        raise RemoteProtocolError("header block does not end with an empty line")
    status, description = (
        (None, "") if lines[0] == "NATS/1.0" else _parse_version_line(block[: block.find(b"\r\n")])
    )
    pairs = _Received()
    for line in lines[1:end]:
        name, colon, value = line.partition(":")
        if not colon:
            raise RemoteProtocolError("header line without a colon")
        if name:
            pairs.append((name, value.strip(" \t")))
    return ParsedHeaders(Headers(pairs), status, description)


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _parse_version_line(line: bytes) -> tuple[int | None, str]:
    """Parse ``NATS/1.0[ status[ description]]``."""
    rest = line[len(VERSION) :]
    if not rest:
        return None, ""
    text = rest.strip(_OWS)
    code, description = text[:3], text[3:]
    separated = rest[0] in _OWS and (not description or description[0] in _OWS)
    if not separated or len(code) != 3 or not code.isdigit():
        raise RemoteProtocolError(f"malformed version line {line[:40]!r}")
    return int(code), _decode(description.strip(_OWS))


def status_of(block: bytes) -> int | None:
    """Return the status on the version line, or ``None`` if it has none or is malformed.

    Hot path: nothing else of the block is read.
    """
    if block.startswith(b"NATS/1.0\r\n"):
        return None
    end = block.find(b"\r\n")
    if end < 0 or not block.startswith(VERSION):
        return None
    try:
        return _parse_version_line(block[:end])[0]
    except RemoteProtocolError:
        return None


def header_value(block: bytes, key: bytes) -> bytes | None:
    """Return the first value of ``key`` (exact case) in a header block, or ``None``.

    Hot path: the block is searched, not parsed, and may be malformed elsewhere.
    """
    start = block.find(b"\r\n%b:" % key)
    if start < 0:
        return None
    start += len(key) + 3
    end = block.find(b"\r\n", start)
    return block[start : end if end >= 0 else len(block)].strip(_OWS)
