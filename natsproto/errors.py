"""Every error of the ``natsproto`` package, in one tree.

Each class has a second base from the standard library, so that ``except TimeoutError`` or
``except ConnectionError`` does what a reader expects::

    NatsError
    ├── ProtocolError
    │   ├── LocalProtocolError (ValueError)         we were asked to send something illegal
    │   └── RemoteProtocolError                     the peer broke the protocol
    ├── BadSubjectError (ValueError)                refused before any byte is sent
    ├── InvalidNameError (ValueError)               stream, consumer, object name; refused before any byte
    ├── MaxPayloadError (ValueError)                header + payload above the server's max_payload
    ├── ConfigError (ValueError)                    contradictory or unusable options
    ├── NoServersError (ConnectionError)            no server of the list could be reached
    ├── StaleConnectionError (ConnectionError)      the connection was lost
    ├── ConnectionClosedError (ConnectionError)     used after close(), or closed for good
    ├── SecureConnectionRequiredError (ConnectionError)  TLS wanted, not offered (or the other way round)
    ├── OutboundBufferLimitError (ConnectionError)  the buffer for publishes made while disconnected is full
    ├── SlowConsumerError                           a subscription's queue was full; messages were dropped
    ├── ServerError                                 any other -ERR line
    ├── AuthorizationError (PermissionError)        wrong or missing credentials
    ├── PermissionsViolationError (PermissionError) publish or subscribe not allowed
    ├── RequestTimeoutError (TimeoutError)          no answer in time
    ├── NoRespondersError (ConnectionError)         nobody listens on the subject (status 503)
    ├── WrongStreamError                            another stream, or one of another domain, answered
    ├── APIError                                    a JetStream API error; see natsproto.jetstream.api.errors
    ├── UnsupportedFeatureError                     the server lacks a feature; names the minimum version
    ├── ServerProcessError (RuntimeError)           a local nats-server could not be started
    └── MissingExtraError (ImportError)             an optional dependency is not installed; names the extra

Messages are in ``args``; facts are attributes. No message ever holds a password, token, seed or nonce.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._values import brief, printable

if TYPE_CHECKING:
    from .wire.events import Event


class NatsError(Exception):
    """The base class of every error that this distribution raises itself.

    Errors pickle and copy with their text and attributes, whatever arguments their constructors have: process
    pools and test runners pass them on that way. Their text quotes subjects, names and servers, so characters
    that are not printable are escaped in it. ``args`` have the original text.
    """

    def __str__(self) -> str:
        return printable(super().__str__())

    def __reduce__(self) -> tuple[object, ...]:
        return _remake, (type(self), self.args, self.__dict__)


def _remake(kind: type[NatsError], args: tuple[object, ...], facts: dict[str, object]) -> NatsError:
    """Recreate an error from its text and attributes, without the constructors of this distribution.

    Only the standard library's base is initialized: it has attributes of its own (``ImportError.msg``).
    """
    error = kind.__new__(kind, *args)
    base: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    base.__init__(error, *args)
    error.__dict__.update(facts)
    return error


class ProtocolError(NatsError):
    """One side broke the NATS protocol.

    Attributes:
        position: offset in the byte stream at which the rule was broken, or ``None``.
        events: the events parsed from the same bytes before the error (receiving side only).
    """

    def __init__(
        self, message: str, *, position: int | None = None, events: list[Event] | None = None
    ) -> None:
        super().__init__(message)
        self.position = position
        self.events: list[Event] = events if events is not None else []


class LocalProtocolError(ProtocolError, ValueError):
    """The caller asked to send something that the protocol does not allow; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol does not allow; the parser is dead afterwards."""


class BadSubjectError(NatsError, ValueError):
    """A subject, reply or queue name that must not be sent (empty, white space, control characters …)."""


class InvalidNameError(NatsError, ValueError):
    """A stream, consumer, bucket or object name that cannot be used; refused before any byte is sent."""


class MaxPayloadError(NatsError, ValueError):
    """Header plus payload exceed the server's ``max_payload``; sending it would close the connection."""

    def __init__(self, message: str, *, size: int = 0, max_payload: int = 0) -> None:
        super().__init__(message)
        self.size = size
        self.max_payload = max_payload


class ConfigError(NatsError, ValueError):
    """Options that contradict each other or cannot work."""


class NoServersError(NatsError, ConnectionError):
    """No server could be reached. ``attempts`` is a list of ``(url without credentials, exception)``."""

    def __init__(self, message: str, *, attempts: list[tuple[str, BaseException]] | None = None) -> None:
        super().__init__(message)
        self.attempts: list[tuple[str, BaseException]] = attempts or []


class StaleConnectionError(NatsError, ConnectionError):
    """The connection was lost; the outcome of everything in flight is unknown.

    Attributes:
        silent: the client gave up because the server did not answer. Unlike one that closed the connection,
            such a server may still act, much later, on what was sent (a suspended process continues).
    """

    def __init__(self, message: str = "", *, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent


class ConnectionClosedError(NatsError, ConnectionError):
    """The client is closed (by ``close()``/``drain()``, or for good after the last reconnect attempt)."""


class SecureConnectionRequiredError(NatsError, ConnectionError):
    """The client requires TLS and the server does not offer it, or the server requires and we forbid it."""


class OutboundBufferLimitError(NatsError, ConnectionError):
    """More than ``reconnect_buffer_size`` bytes were published while disconnected."""


class SlowConsumerError(NatsError):
    """A subscription's bounded queue was full and messages were dropped."""

    def __init__(self, message: str, *, subject: str = "", dropped: int = 0) -> None:
        super().__init__(message)
        self.subject = subject
        self.dropped = dropped


class ServerError(NatsError):
    """An ``-ERR`` line without a class of its own; ``text`` is the server's text."""

    def __init__(self, text: str) -> None:
        super().__init__(f"the server said: {brief(text, 300)}")
        self.text = text


class AuthorizationError(NatsError, PermissionError):
    """Wrong, missing, expired or revoked credentials."""


class PermissionsViolationError(NatsError, PermissionError):
    """The account may not publish or subscribe there. ``subject`` and ``operation`` say where and what.

    Attributes:
        certain: the request that failed with it was refused, and nobody has acted on it. The server names
            only the subject: False while several messages may be meant, and for subscriptions, where only
            the answer could not arrive. The answer to a later PING settles it.
    """

    def __init__(self, message: str, *, subject: str = "", operation: str = "") -> None:
        super().__init__(message)
        self.subject = subject
        self.operation = operation
        self.certain = False


class RequestTimeoutError(NatsError, TimeoutError):
    """No answer came in time. Whether the other side acted on the message is unknown."""


class NoRespondersError(NatsError, ConnectionError):
    """Nobody listens on the subject; the server reports that at once (status 503)."""

    def __init__(self, subject: str, hint: str = "") -> None:
        super().__init__(f"no responders on {brief(subject)}" + (f": {hint}" if hint else ""))
        self.subject = subject


class WrongStreamError(NatsError):
    """A publish was acknowledged by another stream than the one it was meant for.

    A stream is identified by its name and its JetStream domain: a hub and a leaf node may each have a stream
    of the same name, and then every message reaches both. Whether the right one stored it, too, is unknown.

    Attributes:
        stream: the stream that answered.
        domain: the domain that it names; ``None`` = it names none.
        expected_stream: the stream that should have answered.
        expected_domain: the domain of that stream; ``None`` = it has none.
    """

    def __init__(
        self,
        message: str,
        *,
        stream: str = "",
        domain: str | None = None,
        expected_stream: str = "",
        expected_domain: str | None = None,
    ) -> None:
        super().__init__(message)
        self.stream = stream
        self.domain = domain
        self.expected_stream = expected_stream
        self.expected_domain = expected_domain


class APIError(NatsError):
    """An error answer of the JetStream API.

    Attributes:
        code: HTTP-like class (400, 404, 500, 503 …).
        err_code: the precise code callers act on (10059 = stream not found …).
        description: the server's text; only the beginning of a long one.
    """

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"JetStream API error {code}/{err_code}: {description}")
        self.code = code
        self.err_code = err_code
        self.description = description


class UnsupportedFeatureError(NatsError):
    """The server does not have a feature. ``minimum`` is the first server version that has it."""

    def __init__(self, feature: str, minimum: str, detail: str = "") -> None:
        super().__init__(
            f"{feature} needs nats-server {minimum} or newer" + (f": {detail}" if detail else "")
        )
        self.feature = feature
        self.minimum = minimum


class ServerProcessError(NatsError, RuntimeError):
    """A local nats-server binary could not be found, started, or made ready.

    The text may end with lines of the server's log.
    """

    def __str__(self) -> str:
        return "\n".join(map(printable, RuntimeError.__str__(self).splitlines()))


class MissingExtraError(NatsError, ImportError):
    """An optional dependency is missing. ``extra`` is the name to install: ``natsproto[extra]``."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what}. Install it with: pip install 'natsproto[{extra}]'")
        self.extra = extra
