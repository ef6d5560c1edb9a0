"""JetStream errors by the server's own codes.

One class per code that callers act on, all below :class:`natsproto.errors.APIError`::

    APIError
    ├── StreamNotFoundError          10059
    ├── StreamNameInUseError         10058
    ├── StreamSealedError            10109
    ├── StreamConfigError            10052, 10025, 10074, 10113, 10111
    ├── ConsumerNotFoundError        10014
    ├── ConsumerExistsError          10148, 10013
    ├── MaxConsumersError            10026
    ├── MessageNotFoundError         10037, 10043 (and 404 of a direct get)
    ├── MessageDeleteError           10057
    ├── WrongLastSequenceError       10071, 10164
    ├── StorageFullError             10077, 10002, 10023, 10028, 10047, 10027, 10053, 10122
    ├── MessageTooLargeError         10054, 10097
    ├── TemporarilyUnavailableError  10008, 10009, 10096, 10158, 10163, 10167, 10210, 10211
    └── JetStreamNotEnabledError     10076, 10039
"""

from __future__ import annotations

import re
from typing import ClassVar

from ... import _values
from ...errors import (
    APIError,
    InvalidNameError,
    NatsError,
    NoRespondersError,
    StaleConnectionError,
)
from .codec import is_number


class StreamNotFoundError(APIError):
    """The stream does not exist."""

    codes: ClassVar[tuple[int, ...]] = (10059,)


class StreamNameInUseError(APIError):
    """A stream of that name exists with another configuration."""

    codes: ClassVar[tuple[int, ...]] = (10058,)


class StreamSealedError(APIError):
    """The stream is sealed: nothing can be stored or removed."""

    codes: ClassVar[tuple[int, ...]] = (10109,)


class StreamConfigError(APIError):
    """The server refuses the configuration."""

    codes: ClassVar[tuple[int, ...]] = (10052, 10025, 10074, 10113, 10111)


class ConsumerNotFoundError(APIError):
    """The consumer does not exist."""

    codes: ClassVar[tuple[int, ...]] = (10014,)


class ConsumerExistsError(APIError):
    """A consumer of that name exists with another configuration."""

    codes: ClassVar[tuple[int, ...]] = (10148, 10013)


class MaxConsumersError(APIError):
    """The stream or account has reached its limit of consumers."""

    codes: ClassVar[tuple[int, ...]] = (10026,)


class MessageNotFoundError(APIError):
    """No such message, or it was deleted."""

    codes: ClassVar[tuple[int, ...]] = (10037, 10043)


class MessageDeleteError(APIError):
    """A message could not be deleted, perhaps because it no longer exists: read it to find out."""

    codes: ClassVar[tuple[int, ...]] = (10057,)


class WrongLastSequenceError(APIError):
    """A compare-and-set failed: the stream or subject has another last sequence than expected."""

    codes: ClassVar[tuple[int, ...]] = (10071, 10164)

    @property
    def last(self) -> int | None:
        """The last sequence that the server has; ``None`` when it did not say."""
        match = re.search(r"sequence: (\d{1,19})$", self.description)
        return None if match is None else int(match[1])


class StorageFullError(APIError):
    """A limit of the stream, the account or the server is reached; nothing was stored. A retry is pointless.

    10077: the stream's own limits; 10002: the account's storage; 10023: the server's storage; 10028 and
    10047: memory and disk that a stream wants to reserve; 10027: the account's number of streams; 10053 and
    10122: its other limits.
    """

    codes: ClassVar[tuple[int, ...]] = (10077, 10002, 10023, 10028, 10047, 10027, 10053, 10122)


class MessageTooLargeError(APIError):
    """The message is above the stream's ``max_msg_size``, or its headers are above 64 KiB."""

    codes: ClassVar[tuple[int, ...]] = (10054, 10097)


class TemporarilyUnavailableError(APIError):
    """A retry may succeed: no leader, too many requests, or the same message id is being processed.

    10096 comes for a consumer of a stream that is being closed: it was deleted, or its server stops. 10210
    and 10211 come while other clients have as many batches open as the server allows; it forgets an
    unfinished atomic batch after 10 s without a message.
    """

    codes: ClassVar[tuple[int, ...]] = (10008, 10009, 10096, 10158, 10163, 10167, 10210, 10211)


class JetStreamNotEnabledError(APIError):
    """JetStream is off for this server or account."""

    codes: ClassVar[tuple[int, ...]] = (10076, 10039)


def _by_code() -> dict[int, type[APIError]]:
    table: dict[int, type[APIError]] = {}
    for kind in APIError.__subclasses__():
        for code in getattr(kind, "codes", ()):
            if code in table:
                raise AssertionError(f"two classes for error code {code}")
            table[code] = kind
    return table


_CLASSES = _by_code()

NO_SUITABLE_PEERS = 10005
"""Error code with lasting reasons (tags, space) and passing ones (a peer that is offline)."""

_IN_NO_NAME = re.compile(r"[.*>/\\ \t\r\n\f\ud800-\udfff]")
"""What servers refuse in a name, what would end the subject of a request, and what is no character."""


def api_error(error: object) -> APIError:
    """Build the error for the ``error`` object of an answer, whatever that contains."""
    fields = error if isinstance(error, dict) else {}
    code, err_code = fields.get("code"), fields.get("err_code")
    description = fields.get("description")
    code = code if is_number(code) else 0
    err_code = err_code if is_number(err_code) else 0
    kind = _CLASSES.get(err_code, APIError)
    words = _values.cut(description) if isinstance(description, str) else "no description"
    return kind(code, err_code, words)


def retryable(exc: BaseException) -> bool:
    """True for errors after which the same call may soon succeed without anybody's help.

    The HTTP-like code does not decide it: a full store is a 503, too.
    """
    if isinstance(exc, TemporarilyUnavailableError | NoRespondersError | StaleConnectionError):
        return True
    if isinstance(exc, APIError) and exc.err_code == NO_SUITABLE_PEERS:
        return "peer offline" in exc.description  # just started, or being replaced
    return isinstance(exc, NatsError) and isinstance(exc, TimeoutError)


def check_name(what: str, name: object) -> str:
    """Check the name of a stream or consumer that may exist, and return its text.

    Others choose names, and servers accept control characters and spaces of other alphabets: so do requests
    about what is there. A server does not answer a request with any other name.

    Raises:
        InvalidNameError: empty, not a ``str``, or with ``. * > / \\``, or with white space that ends a token.
    """
    if not isinstance(name, str) or not _values.text(name):
        raise InvalidNameError(f"a {what} name must be a non-empty str")
    text = _values.text(name)
    if _IN_NO_NAME.search(text):
        raise InvalidNameError(f"{what} name {_values.brief(text)}: no . * > / \\, no white space")
    return text


def check_new_name(what: str, name: object) -> str:
    """Check the name of a stream or consumer to create, as :func:`check_name`, and return its text.

    Raises:
        InvalidNameError: it has other white space, too, or control characters, or more than 255 characters.
    """
    text = check_name(what, name)
    if any(ch.isspace() or not ch.isprintable() for ch in text) or len(text) > 255:
        raise InvalidNameError(
            f"{what} name {_values.brief(text)}: no . * > / \\, no white space, at most 255 characters"
        )
    return text
