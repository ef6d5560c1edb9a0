"""Choose server and credentials (option, environment, context, default), and connect."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypedDict, TypeVar

from .output import CommandError, Output, interruptible, is_terminal

if TYPE_CHECKING:
    import ssl

    from natsproto.aio.client import Client
    from natsproto.jetstream.context import JetStreamContext
    from objstore.store import ObjectStore

T = TypeVar("T")
DEFAULT_URL = "nats://127.0.0.1:4222"
NAME = "objstore"
REQUEST_TIMEOUT = 5.0
"""Seconds a request may take, unless ``--timeout`` sets another time."""

TAKE_OVER = 20.0
"""Seconds a step is retried while another command takes over the server of ``--local``."""

SWAPPED = 3
"""Arguments tried as buckets when the first one is not a bucket."""

_IDENTITY = ("user", "password", "password_file", "token", "creds", "nkey", "jwt", "seed")
_TLS = ("tlsca", "tlscert", "tlskey")


class ConnectOptions(TypedDict, total=False):
    """The options of :func:`natsproto.connect` that this command uses."""

    user: str | None
    password: str | None
    token: str | Callable[[], str]
    creds: str
    nkey_seed: str
    jwt: str
    tls: ssl.SSLContext
    tls_first: bool
    inbox_prefix: str
    connect_timeout: float
    request_timeout: float
    name: str
    disconnected_cb: Callable[[], None]
    reconnect_wait_max: float


class JetStreamOptions(TypedDict, total=False):
    """The options of ``Client.jetstream`` that this command uses."""

    timeout: float
    domain: str
    prefix: str


class Settings:
    """Where and how to connect.

    Attributes:
        servers: URLs, separated by commas.
        options: keywords of :func:`natsproto.connect`.
        jetstream: keywords of ``Client.jetstream``.
    """

    __slots__ = ("jetstream", "options", "servers")

    def __init__(self, servers: str, options: ConnectOptions, jetstream: JetStreamOptions) -> None:
        self.servers: str = servers
        self.options: ConnectOptions = options
        self.jetstream: JetStreamOptions = jetstream


def check_connection(args: Namespace) -> None:
    """Refuse options that contradict each other.

    Raises:
        CommandError: exit code 2.
    """
    if args.local is not None:
        own = (
            "server",
            "context",
            *_IDENTITY,
            *_TLS,
            "tlsfirst",
            "inbox_prefix",
            "js_domain",
            "js_api_prefix",
        )
        for key in own:
            if getattr(args, key) is not None:
                raise CommandError(f"--local DIR has its own server: omit --{key.replace('_', '-')}", 2)
    if args.password is not None and args.password_file is not None:
        raise CommandError("give --password or --password-file, not both", 2)
    if (args.tlscert is None) != (args.tlskey is None):
        raise CommandError("--tlscert and --tlskey go together", 2)
    if (args.jwt is None) != (args.seed is None):
        raise CommandError("--jwt and --seed go together: the seed signs for the JWT", 2)
    if args.js_domain is not None and args.js_api_prefix is not None:
        raise CommandError("give --js-domain or --js-api-prefix, not both: a domain is a prefix", 2)


@interruptible()  # a file it reads may be a pipe in which nobody writes
def settings(args: Namespace, environ: Mapping[str, str], out: Output) -> Settings:
    """Combine options, environment and context.

    Options take precedence over the environment, and that over the selected context. A context that
    ``--context`` names takes precedence over the environment.

    Credentials in every URL leave no use for those of the environment and of a context.

    A context's credentials belong to its server: they are not sent to a server named by ``--server`` or
    ``NATS_URL``, unless ``--context`` named the context.

    Raises:
        CommandError: a file or context cannot be used; exit code 2.
    """
    from natsproto.aio.server_pool import parse_urls

    from .contexts import context_path, load_context, selected_context

    if environ.get("NATS_SOCKS_PROXY"):
        raise CommandError(
            "NATS_SOCKS_PROXY: a proxy is not supported, and nothing goes around it: unset it", 2
        )
    url = args.server or environ.get("NATS_URL")
    name = args.context or (None if url else selected_context(environ))
    context = {} if name is None else load_context(name, environ)
    secrets = context.keys() & {"password", "token", "user_seed"}
    if name is not None and (secrets or "@" in context.get("url", "")):
        check_private(context_path(name, environ), f"context {name!r} with a password or token in it,", out)
    if args.context:
        url = args.server or context.get("url") or environ.get("NATS_URL")
    options = _timeouts(args, environ)
    found = [_from_environment(environ), _from_context(context)]
    if args.context:
        found.reverse()
    url = url or context.get("url") or DEFAULT_URL
    in_urls = "@" in url and all(server.has_credentials for server in parse_urls(url))
    options.update(_credentials(args, environ, [] if in_urls else found, out))
    tls = _tls_context(*_tls_files([_from_options(args), *found]), out)
    if tls is not None:
        options["tls"] = tls
    if args.tlsfirst or (args.tlsfirst is None and context.get("tls_first")):
        options["tls_first"] = True
    inbox_prefix = args.inbox_prefix or context.get("inbox_prefix")
    if inbox_prefix:
        options["inbox_prefix"] = inbox_prefix
    jetstream: JetStreamOptions = {"timeout": options.get("request_timeout", REQUEST_TIMEOUT)}
    if args.js_domain or args.js_api_prefix:
        domain, prefix = args.js_domain, args.js_api_prefix
    else:
        domain, prefix = context.get("jetstream_domain"), context.get("jetstream_api_prefix")
    if domain:
        jetstream["domain"] = domain
    elif prefix:
        jetstream["prefix"] = prefix
    user, at, _ = (args.server or "").rpartition("@")
    if at:
        what = "password" if ":" in user.rpartition("//")[2] else "token"
        out.warn(f"everyone on this machine can read a {what} on the command line: use NATS_URL")
    return Settings(url, options, jetstream)


Given = dict[str, str | None]
"""Credentials and TLS files of one source, by the names of the options."""


def _from_options(args: Namespace) -> Given:
    return {key: getattr(args, key) for key in (*_IDENTITY, *_TLS)}


def _from_environment(environ: Mapping[str, str]) -> Given:
    names = {"tlsca": "NATS_CA", "tlscert": "NATS_CERT", "tlskey": "NATS_KEY"}
    found = {key: environ.get(names.get(key, f"NATS_{key.upper()}")) or None for key in (*_IDENTITY, *_TLS)}
    found["password_file"] = None
    if found["user"] is None:
        found["password"] = None  # it is for --user
    return found


def _from_context(context: Mapping[str, str]) -> Given:
    names = {"tlsca": "ca", "tlscert": "cert", "tlskey": "key", "jwt": "user_jwt", "seed": "user_seed"}
    return {key: context.get(names.get(key, key)) for key in (*_IDENTITY, *_TLS)}


def _tls_files(sources: list[Given]) -> tuple[str | None, str | None, str | None]:
    """Return CA, certificate and key; the latter two of the same source."""
    ca = next((each["tlsca"] for each in sources if each["tlsca"]), None)
    pairs = ((each["tlscert"], each["tlskey"]) for each in sources if each["tlscert"] or each["tlskey"])
    return (ca, *next(pairs, (None, None)))


def _timeouts(args: Namespace, environ: Mapping[str, str]) -> ConnectOptions:
    seconds: float | None = args.timeout
    if seconds is None and environ.get("NATS_TIMEOUT"):
        from argparse import ArgumentTypeError

        from .arguments import timeout

        try:
            seconds = timeout(environ["NATS_TIMEOUT"])
        except ArgumentTypeError as exc:
            raise CommandError(f"NATS_TIMEOUT: {exc}", 2) from None
    return {} if seconds is None else {"connect_timeout": seconds, "request_timeout": seconds}


def _credentials(
    args: Namespace, environ: Mapping[str, str], others: list[Given], out: Output
) -> ConnectOptions:
    """Return the credentials of the first source that has any: options, then the others in their order."""
    given = _from_options(args)
    if any(given[key] is not None for key in _IDENTITY):
        _warn_of_visible(given, out)
        if given["user"] is None and (given["password"] or given["password_file"]):
            given["user"] = environ.get("NATS_USER")
        if given["user"] is not None and given["password"] is None and given["password_file"] is None:
            given["password"] = environ.get("NATS_PASSWORD")
    else:
        given = next((each for each in others if any(each[key] for key in _IDENTITY)), given)
    if given["password_file"]:
        given["password"] = _secret(str(given["password_file"]), "password file", out)
    user, password = given["user"], given["password"]
    if user is not None:
        if password is None:
            password = _ask_password(user)
        return {"user": user, "password": password}
    if password is not None:
        raise CommandError("a password needs --user or NATS_USER", 2)
    if given["creds"]:
        return _from_creds(given["creds"], out)
    if given["nkey"]:
        return {"nkey_seed": _secret(given["nkey"], "NKey file", out)}
    jwt, seed = given["jwt"], given["seed"]
    if jwt or seed:
        if not (jwt and seed):
            raise CommandError("a JWT and its seed go together: give both", 2)
        return {"jwt": _text_or_file(jwt, "JWT", out), "nkey_seed": _text_or_file(seed, "seed", out)}
    return {"token": given["token"]} if given["token"] else {}


def _from_creds(path: str, out: Output) -> ConnectOptions:
    check_private(path, "credentials file", out)
    if os.path.isfile(path):
        return {"creds": path}  # the library reads it at each attempt to connect, on the event loop
    from natsproto.aio.auth import read_credentials

    jwt, seed = read_credentials(path)  # a pipe has them only once
    return {"jwt": jwt, "nkey_seed": seed}


def _warn_of_visible(given: Given, out: Output) -> None:
    """Warn of secrets on the command line, which everyone on the machine can read."""
    from natsproto.aio.auth import looks_secret

    for key, instead in (("password", "--password-file"), ("token", "NATS_TOKEN"), ("seed", "a file")):
        value = given[key]
        if value is not None and (key != "seed" or looks_secret(value)):
            out.warn(f"everyone on this machine can read --{key}: use {instead}")


def _text_or_file(value: str, what: str, out: Output) -> str:
    """Return a JWT or seed: the value itself, or the content of the file that it names."""
    from natsproto.aio.auth import looks_secret

    return value if looks_secret(value) else _secret(value, f"{what} file", out).strip()


def _ask_password(user: str) -> str:
    if not is_terminal(sys.stdin):
        raise CommandError(f"no password for user {user!r}: pass --password-file or set NATS_PASSWORD", 2)
    from getpass import getpass

    return getpass(f"Password of {user!r}: ", stream=sys.stderr)


def _check_path(path: str, what: str) -> None:
    from natsproto.aio.auth import looks_secret

    if looks_secret(path):
        raise CommandError(
            f"the path of the {what} looks like its content: write the content to a file that only you can "
            "read (and if others could see it here, replace the key)",
            2,
        )


def check_private(path: str, what: str, out: Output) -> None:
    """Warn when others can read a file with secrets.

    Raises:
        CommandError: the file does not exist, or its content was given instead; exit code 2.
    """
    _check_path(path, what)
    try:
        mode = os.stat(path).st_mode
    except OSError as exc:
        raise CommandError(f"{what} {path!r}: {(exc.strerror or str(exc)).lower()}", 2) from None
    if stat.S_ISREG(mode) and mode & 0o077:
        out.warn(f"{what} {path!r} can be read by others (mode {mode & 0o777:04o}): chmod 600 it")


def _secret(path: str, what: str, out: Output) -> str:
    check_private(path, what, out)
    try:
        with open(path, "rb") as file:
            raw = file.read(1 << 16)
    except OSError as exc:
        raise CommandError(f"{what} {path!r}: {(exc.strerror or '').lower()}", 2) from None
    text = raw.decode("utf-8", "replace").rstrip("\r\n")  # a decoding error would contain the secret
    if "\ufffd" in text:
        raise CommandError(f"{what} {path!r}: not text", 2)
    return text


def _tls_context(ca: str | None, cert: str | None, key: str | None, out: Output) -> ssl.SSLContext | None:
    if not (ca or cert or key):
        return None
    import ssl

    for path in filter(None, (ca, cert)):
        _check_path(path, "certificate file")
    for path in dict.fromkeys(filter(None, (key, cert, ca))):
        if path == key or _holds_key(path):
            check_private(path, "private key", out)
    try:
        with interruptible(in_python=False):
            context = ssl.create_default_context(cafile=ca)
            if cert:
                context.load_cert_chain(cert, key, lambda: "")  # an encrypted key fails instead of prompting
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.hostname_checks_common_name = False
    except (OSError, ValueError) as exc:
        files = ", ".join(path for path in (ca, cert, key) if path)
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise CommandError(f"TLS files {files}: {reason}", 2) from None
    return context


def _holds_key(path: str) -> bool:
    """Whether a certificate's file has a private key in it, too. A pipe is not read for that."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return b"PRIVATE KEY-----" in file.read(1 << 20)
    except OSError:
        return False  # loading it tells why


class Session:
    """A connection of the command."""

    def __init__(self, client: Client, js: JetStreamContext, *, patient: bool) -> None:
        self.client = client
        self.js = js
        self._patient = patient

    async def steady(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run an idempotent step; retry it while another command takes over the local server."""
        from natsproto.errors import NoRespondersError, StaleConnectionError

        loop = asyncio.get_running_loop()
        deadline = loop.time() + TAKE_OVER
        while True:
            try:
                return await call()
            except (StaleConnectionError, NoRespondersError):
                if not self._patient or loop.time() > deadline:
                    raise
            await asyncio.sleep(0.05)

    async def open(self, bucket: str, *others: str) -> ObjectStore:
        """Open an existing bucket.

        Args:
            others: the other arguments: an error says if one of them is a bucket.
        """
        from objstore.errors import BadBucketError, BucketNotFoundError, NatsError

        try:
            return await self.steady(lambda: self.js.object_store(bucket))
        except (BadBucketError, BucketNotFoundError) as exc:
            for other in others[:SWAPPED]:
                try:
                    await self.js.object_store(other)
                except NatsError:
                    continue
                code = 2 if isinstance(exc, BadBucketError) else 3
                raise CommandError(f"{exc}, but {other!r} is one: the bucket comes first", code) from exc
            raise


@asynccontextmanager
async def session(args: Namespace, out: Output) -> AsyncIterator[Session]:
    """Connect according to the arguments, and disconnect at the end."""
    with _logging_to(out):
        if args.local is not None:
            from .local import LocalDirectory

            options = _timeouts(args, os.environ)
            options["name"] = NAME
            async with LocalDirectory(args.local) as directory:
                if directory.exposed:
                    out.warn(directory.exposed)
                async with directory.connect(**options) as client:
                    timeout = options.get("request_timeout", REQUEST_TIMEOUT)
                    yield Session(client, client.jetstream(timeout=timeout), patient=True)
            return
        import natsproto

        found = settings(args, os.environ, out)
        found.options["name"] = NAME
        async with natsproto.connect(found.servers, **found.options) as client:
            yield Session(client, client.jetstream(**found.jetstream), patient=False)


@contextmanager
def _logging_to(out: Output) -> Iterator[None]:
    """Show the library's warnings as warnings of the command: one escaped line each."""
    import logging

    class Handler(logging.Handler):
        last = ""

        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if text != self.last:  # while a server is gone, the same is logged again and again
                self.last = text
                out.warn(text)

    handler = Handler(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("natsproto", "objstore")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
