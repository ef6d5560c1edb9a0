"""One line and one exit code for everything that can go wrong."""

from __future__ import annotations

from ssl import SSLError

import pytest

from natsproto import errors as core
from natsproto.jetstream.api.errors import JetStreamNotEnabledError
from objstore import errors
from objstore.cli.failures import failure
from objstore.cli.output import CommandError
from objstore.errors import exit_code

REFUSED = core.NoServersError("x", attempts=[("nats://h:1", ConnectionRefusedError(111, "refused"))])

BAD_TLS = SSLError(1, "bad")
BAD_TLS.reason = "BAD"

CASES: list[tuple[BaseException, int, str]] = [
    (CommandError("get: 'x' exists", 4), 4, "exists"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (REFUSED, 5, "cannot reach nats://h:1 (connection refused)"),
    (core.NoServersError("x"), 5, "objstore demo"),
    (core.NoServersError("x", attempts=[("tls://h:1", BAD_TLS)]), 5, "--tlsca"),
    (core.StaleConnectionError("the connection was lost"), 5, "lost. Run the command again when the server"),
    (core.ConnectionClosedError("the connection is closed"), 5, "--resume"),
    (core.RequestTimeoutError("no answer"), 5, "--timeout"),
    (core.AuthorizationError("wrong"), 6, "--password-file"),
    (core.PermissionsViolationError("not allowed"), 6, "permission"),
    (core.InvalidNameError("too long"), 2, "too long"),
    (core.ConfigError("contradiction"), 2, "contradiction"),
    (core.MissingExtraError("signing", "nkeys"), 1, "pip install 'natsproto[nkeys]'"),
    (core.UnsupportedFeatureError("compression", "2.10.0"), 1, "2.10.0"),
    (core.ServerProcessError("ended. Log:\n[1] one\n\n[2] two"), 1, "ended. Log: [1] one | [2] two"),
    (JetStreamNotEnabledError(503, 10076, "JetStream is off on this server: start it with -js"), 1, "-js"),
    (errors.BucketNotFoundError("bucket 'b' does not exist", bucket="b"), 3, "objstore bucket add b"),
    (errors.ObjectNotFoundError("no object 'x'", bucket="b"), 3, "objstore ls b"),
    (errors.ObjectDeletedError("was deleted", bucket="b"), 3, "was deleted"),
    (errors.LinkError("leads nowhere"), 3, "nowhere"),
    (errors.BucketAlreadyExistsError("exists"), 4, "exists"),
    (errors.ObjectAlreadyExists("exists"), 4, "exists"),
    (errors.BucketSealedError("sealed"), 4, "sealed"),
    (errors.StoreFullError("full"), 4, "limit"),
    (errors.BadBucketError("bad"), 2, "bad"),
    (errors.BadObjectMetaError("bad"), 2, "bad"),
    (errors.DigestMismatchError("differs"), 7, "Store it again"),
    (errors.ObjectChangedError("replaced"), 7, "replaced"),
    (errors.OutcomeUnknownError("unknown", bucket="b"), 5, "objstore info b"),
    (FileNotFoundError(2, "No such file or directory", "f"), 1, "'f': no such file or directory"),
    (OSError("odd"), 1, "OSError"),
    (RuntimeError("odd\nbug"), 1, "internal error: RuntimeError: odd bug"),
]


@pytest.mark.parametrize(("exc", "code", "text"), CASES, ids=lambda value: type(value).__name__)
def test_line_and_code(exc: BaseException, code: int, text: str) -> None:
    line, found = failure(exc)
    assert text in line
    assert "\n" not in line
    assert found == code
    if not isinstance(exc, CommandError):
        assert found == exit_code(exc)


def test_every_code_is_reached() -> None:
    assert {code for _, code, _ in CASES} == {1, 2, 3, 4, 5, 6, 7, 130}


def test_long_logs_are_cut() -> None:
    line, _ = failure(core.ServerProcessError("ended\n" + "\n".join(["x" * 50] * 100)))
    assert len(line) < 500
