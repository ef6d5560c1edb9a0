"""One ``nats-server`` as a child process."""

from __future__ import annotations

import json
import os
import shutil
import signal as signals
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from glob import escape, glob
from typing import Any, Final, Self

from .._owner import Address, peer_user
from .._values import seconds
from ..errors import ConfigError, ServerProcessError
from . import configuration
from .binary import ServerBinary, find_server
from .lifetime import Lifetime
from .process import Ports, Watchdog

_POLL: Final = 0.004  # seconds; a start takes a few hundredths of a second
_STOP_TIMEOUT: Final = 5.0  # seconds from SIGTERM to SIGKILL
_HTTP_TIMEOUT: Final = 5.0  # seconds
_PORT_ATTEMPTS: Final = 5
_OWNER_CHECKS: Final = 10
_OWNER_WAIT: Final = 0.001  # seconds before each check which user has accepted a connection
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class LocalServer(Lifetime):
    """A ``nats-server`` that belongs to this object.

    ``with`` and ``async with`` start and stop it. It keeps its ports and store over :meth:`kill`,
    :meth:`restart` and a crash, so that clients can find it again, until :meth:`stop`. It ends with this
    process, even if SIGKILL ends that. Do not use it from several threads at once.

    Once started, it is certain that this server listens on the port, not a quicker user of the machine. While
    it is killed or stopped, anybody may listen there.

    The configuration is written to a file that only the user can read; no secret appears in a command line.

    Args:
        binary: path of ``nats-server``; default as in :func:`~natsproto.server.find_server`.
        store_dir: JetStream's directory. It is created if it does not exist, and kept; the default is a
            private one that :meth:`stop` removes.
        jetstream: switch JetStream on. ``max_file_store`` is 1 TB, so that large ``max_bytes`` are accepted.
        domain: JetStream domain.
        config: configuration text appended to the generated one (``accounts``, ``authorization`` …). A block
            replaces the generated one of that name: ``jetstream { max_file_store: 64MB }`` is possible.
        args: more arguments for the command line. Everybody on the machine can read them: no secrets.
        port: for clients; default: a free one.
        host: address to listen on. Monitoring is always on 127.0.0.1.
        user, password, token: credentials that clients must use.
        max_payload: in bytes.
        tls: ``dict(cert_file=…, key_file=…, ca_file=None, verify=False, handshake_first=False)``;
            ``verify`` asks clients for a certificate, ``handshake_first`` needs server 2.10.4.
        name: the server's name; the default contains the port.
        start_timeout: seconds from :meth:`start` to readiness.
        log_file: file to which the log is appended; default: a private file, see :meth:`log`.
        monitoring: switch HTTP monitoring on. Every user of the machine can read it: names of streams and
            subjects, users, and with nats-server 2.9 the ``token``.

    Raises:
        ConfigError: contradictory options.

    Attributes:
        host, port: where clients connect to; the port is 0 before the first start.
        monitor_port: port of the HTTP monitoring on 127.0.0.1; 0 before the first start, and without it.
        name: the server's name.
        store_dir: JetStream's directory, ``""`` while it has none.
    """

    def __init__(
        self,
        *,
        binary: str | os.PathLike[str] | None = None,
        store_dir: str | os.PathLike[str] | None = None,
        jetstream: bool = True,
        domain: str | None = None,
        config: str | None = None,
        args: Sequence[str] = (),
        port: int | None = None,
        host: str = "127.0.0.1",
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        max_payload: int | None = None,
        tls: configuration.TlsOptions | None = None,
        name: str | None = None,
        start_timeout: float = 10.0,
        log_file: str | os.PathLike[str] | None = None,
        monitoring: bool = True,
    ) -> None:
        if (user is None) != (password is None):
            raise ConfigError("user and password go together")
        if token is not None and user is not None:
            raise ConfigError("either token or user and password")
        if domain is not None and not jetstream:
            raise ConfigError("a JetStream domain without JetStream")
        self.host = host
        self.port: int = port or 0
        self.monitor_port: int = 0
        self.name: str = name or ""
        self.store_dir: str = "" if store_dir is None else os.path.abspath(os.fspath(store_dir))
        self._keep_store = store_dir is not None
        self._wanted_binary = binary
        self._wanted_port = port or 0
        self._wanted_name = name
        self._jetstream = jetstream
        self._domain = domain
        self._extra = config or ""
        self._args = list(args)
        self._credentials = (user, password, token)
        self._max_payload = max_payload
        self._tls = configuration.check_tls(tls)
        self._start_timeout = start_timeout
        self._log_path = "" if log_file is None else os.path.abspath(os.fspath(log_file))
        self._own_log = log_file is None
        self._monitoring = monitoring
        self._old_log = ""
        self._binary: ServerBinary | None = None
        self._ports: Ports | None = None
        self._private = ""
        self._watchdog: Watchdog | None = None
        self._guarded = False  # whether the watchdog guards a process
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # id of the process that started the server; a forked child must not touch it
        self._given_up = False

    # --- facts ----------------------------------------------------------------------------------------

    @property
    def binary(self) -> ServerBinary:
        """The executable. Raises ServerProcessError if there is none."""
        if self._binary is None:
            self._binary = find_server(self._wanted_binary)
        return self._binary

    @property
    def version(self) -> str:
        """The server's version, such as ``"2.15.1"``."""
        return self.binary.version

    @property
    def url(self) -> str:
        """Address for clients, without credentials; ``tls://`` if TLS is on."""
        host = _ANY_ADDRESS.get(self.host, self.host)
        return f"{'tls' if self._tls else 'nats'}://{configuration.address(host, self._known(self.port))}"

    @property
    def monitor_url(self) -> str:
        """Address of the HTTP monitoring.

        Raises:
            ServerProcessError: not started yet, or without monitoring.
        """
        return f"http://127.0.0.1:{self._known_monitor_port()}"

    @property
    def pid(self) -> int:
        """Process id. Raises ServerProcessError when no process runs."""
        return self._running_process().pid

    @property
    def running(self) -> bool:
        """Whether the process exists, even if it is paused."""
        process = self._process
        if process is None or self._owner != os.getpid():
            return False
        if process.poll() is None:
            return True
        self._ended()
        return False

    def log(self, lines: int = 100) -> str:
        """Return the last lines of the server's log; works after :meth:`stop`, too."""
        if not self._log_path:
            text = self._old_log
        else:
            try:
                with open(self._log_path, "rb") as file:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - 1024 * lines))
                    text = file.read().decode(errors="replace")
            except OSError:
                text = ""
        return "\n".join(text.splitlines()[-lines:])

    # --- life -----------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the server and return when it is ready: it listens and reports itself healthy.

        After :meth:`kill` or a crash this continues on the same ports and store. Does nothing while it runs.

        Raises:
            ServerProcessError: there is no binary, the given port (or that of the last start) is taken, or
                the server is not ready within ``start_timeout``; the message has the binary, its version and
                the last lines of the log. Nothing is left behind.
            UnsupportedFeatureError: an option needs a newer server.
        """
        if self.running:
            return self
        deadline = time.monotonic() + self._start_timeout
        self._given_up = False
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            fresh = self._ports is None
            try:
                self._spawn()
                self._wait_ready(deadline)
            except BaseException as exc:
                taken = isinstance(exc, ServerProcessError) and "address already in use" in str(exc)
                self._discard()
                if fresh:
                    self._forget_ports()
                if not (taken and fresh and not self._wanted_port and attempt < _PORT_ATTEMPTS):
                    raise
            else:
                break
        return self

    def stop(self) -> None:
        """Stop the server, even a paused one: SIGTERM, after 5 s SIGKILL. Remove the private directory.

        A store directory that you named is kept; ports that were chosen are released. Does nothing when there
        is nothing to stop.
        """
        if self._owner != os.getpid():
            return
        self._stop_process()
        self._discard()
        self._forget_ports()

    def kill(self) -> None:
        """End the process with SIGKILL, like a crash; store and ports are kept for :meth:`start`."""
        if self.running and self._process is not None:
            self._process.kill()
            self._process.wait()
            self._ended()

    def restart(self) -> Self:
        """Stop the process (SIGTERM) if it runs, and start it on the same ports and store.

        Raises:
            ServerProcessError: as :meth:`start`.
        """
        if self._owner == os.getpid():
            self._stop_process()
        return self.start()

    def pause(self) -> None:
        """Suspend the process (SIGSTOP); return when it has stopped running. Sockets stay open."""
        pid = self.pid
        os.kill(pid, signals.SIGSTOP)
        deadline = time.monotonic() + 1.0
        options = os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG
        while os.waitid(os.P_PID, pid, options) is None and time.monotonic() < deadline:
            time.sleep(0.001)

    def resume(self) -> None:
        """Continue a paused process (SIGCONT)."""
        self.signal(signals.SIGCONT)

    def lame_duck(self) -> None:
        """Enter lame duck mode (SIGUSR2): the server tells clients to leave, disconnects them, then ends.

        The server's ``lame_duck_grace_period`` (10 s) and ``lame_duck_duration`` (2 min) say how long that
        takes; ``config`` can set both.
        """
        self.signal(signals.SIGUSR2)

    def signal(self, number: int) -> None:
        """Send a signal to the process. Raises ServerProcessError when none runs."""
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """Wait until the process ends by itself; return its exit code (negative: killed by that signal).

        Raises:
            TimeoutError: it still runs after ``timeout`` seconds.
            ServerProcessError: it was never started.
        """
        if self._process is None:
            raise ServerProcessError("the server was not started")
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"nats-server {self._process.pid} still runs after {seconds(timeout)} s"
            ) from None
        self._ended()
        return code

    def __repr__(self) -> str:
        state = f"pid={self._process.pid}" if self.running and self._process else "not running"
        return f"<LocalServer {self.name or '?'} {self.url if self.port else ''} {state}>"

    # --- monitoring -----------------------------------------------------------------------------------

    def monitor(self, path: str, **params: object) -> dict[str, Any]:
        """GET a monitoring page: ``server.monitor("subsz", subs=1)``.

        Raises:
            OSError: no answer: the process does not run, or is paused (after 5 s).
            ServerProcessError: the answer is not JSON; or not started yet, or without monitoring.
        """
        status, body = self._get(path, _HTTP_TIMEOUT, **params)
        try:
            page = json.loads(body)
        except ValueError:
            raise ServerProcessError(f"monitoring page {path!r}: {status} {body[:200]!r}") from None
        if not isinstance(page, dict):
            raise ServerProcessError(f"monitoring page {path!r} is not an object")
        return page

    def varz(self) -> dict[str, Any]:
        """GET general facts, as :meth:`monitor` does."""
        return self.monitor("varz")

    def jsz(self, **params: object) -> dict[str, Any]:
        """GET JetStream's limits, streams (``streams=True``), consumers …, as :meth:`monitor` does."""
        return self.monitor("jsz", **params)

    def connz(self, **params: object) -> dict[str, Any]:
        """GET the client connections, as :meth:`monitor` does."""
        return self.monitor("connz", **params)

    def healthz(self, *, timeout: float = 1.0, **params: object) -> bool:
        """Whether the server reports itself healthy; ``False``, too, when it does not answer in time."""
        try:
            status, body = self._get("healthz", timeout, **params)
            return status == 200 and json.loads(body).get("status") == "ok"
        except (OSError, ValueError, AttributeError):
            return False

    def _get(self, path: str, timeout: float, **params: object) -> tuple[int, bytes]:
        from http.client import HTTPConnection, HTTPException
        from urllib.parse import urlencode

        words = {k: str(v).lower() if isinstance(v, bool) else v for k, v in params.items()}
        # js_enabled_only -> js-enabled-only: the server writes parameters with "-".
        query = urlencode({k.replace("_", "-"): v for k, v in words.items()})
        port = self._known_monitor_port()
        if self._owner == os.getpid() and not self.running:
            raise ConnectionRefusedError("the server does not run: somebody else may have its port now")
        connection = HTTPConnection("127.0.0.1", port, timeout=timeout)
        try:
            connection.request("GET", f"/{path.lstrip('/')}" + (f"?{query}" if query else ""))
            with connection.getresponse() as response:
                return response.status, response.read()
        except HTTPException as exc:
            raise ConnectionError(f"monitoring page {path!r}: {exc!r}") from exc
        finally:
            connection.close()

    # --- the process ----------------------------------------------------------------------------------

    def _choose_ports(self) -> None:
        """Reserve this server's ports."""
        self._ports = Ports([(self.host, self._wanted_port)] + [("127.0.0.1", 0)] * self._monitoring)
        self.port, *monitor_port = self._ports.numbers
        self.monitor_port = monitor_port[0] if monitor_port else 0
        self.name = self._wanted_name or f"natsproto-{self.port}"

    def _forget_ports(self) -> None:
        if self._ports is not None:
            self._ports.release()
            self._ports = None

    def _config_text(self) -> str:
        blocks = [
            f"server_name: {configuration.quote(self.name)}",
            f"listen: {configuration.quote(configuration.address(self.host, self.port))}",
            f'http: "127.0.0.1:{self.monitor_port}"' if self._monitoring else "",
            f"pid_file: {configuration.quote(os.path.join(self._private, 'pid'))}",
            f"ports_file_dir: {configuration.quote(self._private)}",
            f"store_dir: {configuration.quote(self.store_dir)}",  # not in the block: config= may replace that
        ]
        if self._max_payload is not None:
            blocks.append(f"max_payload: {self._max_payload}")
        if self._jetstream:
            blocks.append(configuration.jetstream_block(self._domain))
        if self._tls:
            blocks.append(configuration.tls_block(self._tls, self.binary))
        blocks += [configuration.authorization_block(*self._credentials), self._extra]
        return "\n".join(blocks) + "\n"

    def _spawn(self) -> None:
        """Start the process; the watchdog guards it even before it exists."""
        binary = self.binary
        self._owner = os.getpid()
        if self._ports is None:
            self._choose_ports()
        if not self._private:
            self._private = tempfile.mkdtemp(prefix="natsproto-server-")
            self._watchdog = Watchdog(self._private, graceful=self._keep_store)
            if not self._keep_store:
                self.store_dir = os.path.join(self._private, "store")
            if self._own_log:
                self._log_path = os.path.join(self._private, "server.log")
        assert self._watchdog is not None
        config = os.path.join(self._private, "server.conf")
        with open(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(self._config_text())
        try:
            os.unlink(os.path.join(self._private, "pid"))
        except FileNotFoundError:
            pass
        with open(self._log_path, "ab") as log:
            self._watchdog.tell("?")
            try:
                self._process = subprocess.Popen(
                    [binary.path, "-c", config, *self._args],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # a Ctrl-C in the terminal must not reach it
                )
            except OSError as exc:
                raise ServerProcessError(f"cannot run {binary.path!r}: {exc}") from exc
        self._watchdog.tell(str(self._process.pid))
        self._guarded = True

    def _wait_ready(self, deadline: float) -> None:
        """Return when clients can connect and the server reports itself healthy."""
        params = {"js_enabled_only": True} if self._jetstream else {}
        while True:
            if not self.running:
                raise self._failure("ended at once")
            # A server accepts clients last of all, so this is checked first; a single server has read its
            # store then. Check afterwards that it still runs: a server that cannot listen is about to end.
            if self._accepts() and self.running and (not self._monitoring or self.healthz(**params)):
                return
            if self._given_up or time.monotonic() > deadline:
                raise self._failure(f"was not ready after {seconds(self._start_timeout)} s")
            time.sleep(_POLL)

    def _accepts(self) -> bool:
        """Whether a process of our own user accepts a connection.

        Raises:
            ServerProcessError: somebody else took the port before the server could listen there.
        """
        host = _ANY_ADDRESS.get(self.host, self.host)
        try:
            with socket.create_connection((host, self.port), timeout=0.5) as sock:
                ends = sock.getsockname(), sock.getpeername()
                return any(self.running and self._holds(*ends) for _ in range(_OWNER_CHECKS))
        except OSError:
            return False

    def _holds(self, local: Address, peer: Address) -> bool:
        time.sleep(_OWNER_WAIT)  # the server is about to accept the connection
        try:
            user = peer_user(local, peer)
        except OSError:  # then ask the server: once it listens, it writes its ports to a file
            assert self._process is not None
            return bool(glob(os.path.join(escape(self._private), f"*_{self._process.pid}.ports")))
        if user not in (None, os.geteuid()):
            address = configuration.address(self.host, self.port)
            raise self._failure(f"found another user at {address}, address already in use")
        return user is not None

    def _failure(self, what: str) -> ServerProcessError:
        return ServerProcessError(
            f"{self.binary.path} (nats-server {self.binary.version}) {what}. "
            f"Last lines of its log:\n{self.log(20) or '(empty)'}"
        )

    def _stop_process(self) -> None:
        process = self._process
        if not self.running or process is None:
            return
        self._terminate()
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._ended()

    def _terminate(self) -> None:
        """Ask the process, if any, to end, and do not wait for it."""
        if self.running and self._process is not None:
            self._process.terminate()
            self._process.send_signal(signals.SIGCONT)  # it may be paused

    def _ended(self) -> None:
        """Note that the process is gone, so that its id is never signalled again."""
        if self._watchdog is not None and self._guarded:
            self._guarded = False
            self._watchdog.tell("0")

    def _discard(self) -> None:
        """Kill the process, if any, and remove the private directory."""
        self.kill()
        self._process = None
        if not self._private:
            return
        if self._own_log:
            self._old_log = self.log(1000)
            self._log_path = ""
        if not self._keep_store:
            self.store_dir = ""
        shutil.rmtree(self._private, ignore_errors=True)
        self._private = ""
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None

    def _give_up(self) -> None:
        self._given_up = True

    def _running_process(self) -> subprocess.Popen[bytes]:
        if not self.running or self._process is None:
            raise ServerProcessError(f"nats-server {self.name} is not running")
        return self._process

    def _known_monitor_port(self) -> int:
        if not self._monitoring:
            raise ServerProcessError("the server has no monitoring: monitoring=False")
        return self._known(self.monitor_port)

    def _known(self, port: int) -> int:
        if not port:
            raise ServerProcessError("the server has no port before its first start")
        return port
