"""Options are checked when connect() is called, before any byte is sent."""

from __future__ import annotations

import inspect
import re
import ssl
from typing import Any

import pytest

import natsproto
from natsproto.aio.connect import connect
from natsproto.aio.options import Options
from natsproto.errors import ConfigError


@pytest.mark.parametrize(
    "options",
    [
        {"connect_timeout": 0},
        {"connect_timeout": -1},
        {"connect_timeout": "2"},
        {"connect_timeout": True},
        {"connect_timeout": float("nan")},
        {"request_timeout": 0},
        {"drain_timeout": None},
        {"ping_interval": 0},
        {"reconnect_wait": 0},
        {"reconnect_wait_max": 0},
        {"max_outstanding_pings": 0},
        {"max_outstanding_pings": 1.5},
        {"pending_msgs_limit": 0},
        {"pending_bytes_limit": -5},
        {"max_reconnects": "60"},
        {"max_reconnects": -2},
        {"reconnect_buffer_size": -1},
        {"reconnect_buffer_size": "8"},
        {"transport": "carrier pigeon"},
        {"inbox_prefix": "a b"},
        {"inbox_prefix": "a.*"},
        {"inbox_prefix": ""},
        {"inbox_prefix": "x\r\nPUB y 0\r\n"},
        {"inbox_prefix": "x" * 1001},
        {"inbox_prefix": "x" * 5000},
        {"name": 7},
        {"password": "p"},
        {"tls": False, "tls_first": True},
        {"tls": False, "tls_hostname": "h"},
        {"servers": "tls://h", "tls": False},
        {"servers": ["nats://a", "wss://b"]},
        {"tls": "yes"},
        {"servers": "http://h"},
        {"servers": []},
        {"nkey_seed": "SU"},
        {"disconnected_cb": lambda reason, more: None},
        {"connected_cb": True},
        {"reconnect_error_cb": "log"},
        {"next_server_cb": "nats://h"},
        {"reconnect_delay_cb": 2.0},
        {"error_cb": "log"},
        {"closed_cb": 1},
        {"retry_on_failed_connect": "yes"},
        {"verbose": "yes"},
        {"verbose": 1},
        {"echo": None},
        {"servers": None},
        {"servers": 4222},
        {"servers": [None]},
        {"user": 5},
        {"user": "u", "password": b"p"},
    ],
)
def test_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        connect(**options)


def test_unknown_options_are_type_errors() -> None:
    with pytest.raises(TypeError):
        connect(server="x")  # type: ignore[call-arg]


def test_connect_and_options_agree() -> None:
    public = inspect.signature(connect).parameters
    assert public == inspect.signature(Options).parameters
    assert [name for name, given in public.items() if given.kind is not given.KEYWORD_ONLY] == ["servers"]
    described = set(re.findall(r"\w+", (inspect.getdoc(connect) or "").partition("Raises:")[0]))
    assert public.keys() <= described


def test_documented_defaults() -> None:
    options = Options()
    assert options.connect_timeout == 2
    assert options.request_timeout == 5
    assert (options.ping_interval, options.max_outstanding_pings) == (20, 2)
    assert options.transport_kind in ("buffered", "streams")


def test_tls_wanted() -> None:
    context = ssl.create_default_context()
    assert not Options().wants_tls("nats")
    assert not Options(tls=False).wants_tls("nats")
    assert Options().wants_tls("tls")
    assert Options().wants_tls("wss")
    assert Options(tls=True).wants_tls("nats")
    assert Options(tls=context).wants_tls("nats")
    assert Options(tls_first=True).wants_tls("nats")
    assert Options(tls=context).ssl_context() is context


def test_default_context_verifies() -> None:
    context = Options(tls=True).ssl_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_nothing_shows() -> None:
    waiting = natsproto.connect("nats://u:CANARY@h", token="CANARY")
    options = Options("nats://u:CANARY@h", password="CANARY", user="u")
    assert "CANARY" not in repr(waiting) + repr(options)
