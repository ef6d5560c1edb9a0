"""Storage options: where and how to connect. What is not given comes from the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, TypedDict, cast

from natsproto.aio.auth import Credentials, looks_secret
from natsproto.aio.connect import connect
from natsproto.aio.options import DEFAULT_SERVER
from natsproto.aio.server_pool import parse_urls
from natsproto.errors import ConfigError

if TYPE_CHECKING:
    import ssl

IDENTITY = tuple(field.name for field in fields(Credentials))
"""Options that say who connects. With one of them the environment's credentials are not used."""

FSSPEC = ("use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache")
"""Options of fsspec itself, which may be given to each file system."""


class Environment:
    """An attribute of a class: the variables that count, as they are now.

    fsspec returns the same file system for the same options, so these must be the same, too.
    """

    NAMES = (
        "NATS_URL",
        "NATS_CREDS",
        "NATS_NKEY",
        "NATS_USER",
        "NATS_PASSWORD",
        "NATS_TOKEN",
        "NATS_CA",
        "NATS_CERT",
        "NATS_KEY",
    )

    def __get__(self, instance: object, owner: type | None = None) -> tuple[str | None, ...]:
        return tuple(map(os.environ.get, self.NAMES))


class ConnectOptions(TypedDict, total=False):
    """Those options of :func:`natsproto.connect` that are set here."""

    user: str
    password: str
    token: str | Callable[[], str]
    creds: str
    nkey_seed: str
    tls: ssl.SSLContext
    name: str


def connection(
    servers: str | Sequence[str] | None,
    tls_files: tuple[str | None, str | None, str | None],
    options: Mapping[str, object],
    environ: Mapping[str, str],
) -> connect:
    """Return what connects, each time it is awaited; nothing is sent yet.

    Args:
        servers: as :func:`natsproto.connect`; default: ``NATS_URL``, then the server on this machine.
        tls_files: certificates of authorities, certificate and key of the client; default: ``NATS_CA``,
            ``NATS_CERT`` and ``NATS_KEY``.
        options: others of :func:`natsproto.connect`. Without credentials among them or in each URL, those of
            ``NATS_CREDS``, ``NATS_NKEY`` (a file with a seed), ``NATS_USER`` and ``NATS_PASSWORD``, or
            ``NATS_TOKEN`` are used.

    Raises:
        ConfigError, TypeError: options that cannot work, or do not exist.
    """
    given: ConnectOptions = {"name": "objstore.filesystem"}
    urls = servers or environ.get("NATS_URL") or DEFAULT_SERVER
    in_urls = all(server.has_credentials for server in parse_urls(urls))
    if not in_urls and not any(options.get(key) for key in IDENTITY):
        given.update(_credentials(environ))
    names = ("NATS_CA", "NATS_CERT", "NATS_KEY")
    files = [path or environ.get(name) for path, name in zip(tls_files, names, strict=True)]
    if any(files) and options.get("tls") is None:
        given["tls"] = _tls_context(*files)
    given.update(cast(ConnectOptions, {key: value for key, value in options.items() if key not in FSSPEC}))
    return connect(urls, **given)


def _credentials(environ: Mapping[str, str]) -> ConnectOptions:
    if environ.get("NATS_CREDS"):
        return {"creds": environ["NATS_CREDS"]}
    if environ.get("NATS_NKEY"):
        return {"nkey_seed": _seed_in(environ["NATS_NKEY"])}
    if environ.get("NATS_USER"):
        return {"user": environ["NATS_USER"], "password": environ.get("NATS_PASSWORD", "")}
    return {"token": environ["NATS_TOKEN"]} if environ.get("NATS_TOKEN") else {}


def _check_path(what: str, path: str) -> None:
    if looks_secret(path):
        raise ConfigError(
            f"{what} takes the path of a file, but the value looks like its content: write the content to a "
            "file that only you can read"
        )


def _seed_in(path: str) -> str:
    _check_path("NATS_NKEY", path)
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1 << 16).strip()
    except OSError as exc:
        why = exc.strerror
    # Out here: that error has the path, which may be a secret that does not look like one.
    raise ConfigError(f"the file named by NATS_NKEY cannot be read: {why}")


def _tls_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    if (cert is None) != (key is None):
        raise ConfigError("tlscert and tlskey (or NATS_CERT and NATS_KEY) go together")
    for what, path in (("tlsca", ca), ("tlscert", cert), ("tlskey", key)):
        if path:
            _check_path(f"{what} (or NATS_{what[3:].upper()})", path)
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.hostname_checks_common_name = False
        if cert:
            context.load_cert_chain(cert, key, lambda: "")  # an encrypted key fails instead of asking
    except (OSError, ValueError) as exc:
        raise ConfigError(f"the TLS files cannot be used: {exc}") from exc
    return context
