"""The account's info: usage, limits, tiers; the whole document stays at hand."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from natsproto.errors import RemoteProtocolError
from natsproto.jetstream.api.account import AccountInfo, AccountLimits, AccountUsage

TIER: dict[str, Any] = {
    "memory": 1,
    "storage": 2,
    "reserved_memory": 3,
    "reserved_storage": 4,
    "streams": 5,
    "consumers": 6,
    "limits": {
        "max_memory": 7,
        "max_storage": -1,
        "max_streams": 8,
        "max_consumers": 9,
        "max_ack_pending": 10,
        "memory_max_stream_bytes": 11,
        "storage_max_stream_bytes": 12,
        "max_bytes_required": True,
        "max_new": 13,
    },
}
DOCUMENT: dict[str, Any] = {
    "type": "io.nats.jetstream.api.v1.account_info_response",
    **TIER,
    "domain": "hub",
    "api": {"level": 5, "total": 20, "errors": 1, "inflight": 2},
    "tiers": {"R1": TIER, "R3": {**TIER, "streams": 50}},
}


def test_all_of_it() -> None:
    info = AccountInfo(DOCUMENT)
    assert info.usage == AccountUsage(
        memory=1,
        storage=2,
        reserved_memory=3,
        reserved_storage=4,
        streams=5,
        consumers=6,
        limits=AccountLimits(
            max_memory=7,
            max_storage=-1,
            max_streams=8,
            max_consumers=9,
            max_ack_pending=10,
            memory_max_stream_bytes=11,
            storage_max_stream_bytes=12,
            max_bytes_required=True,
            extra={"max_new": 13},
        ),
    )
    assert {name: tier.streams for name, tier in info.tiers.items()} == {"R1": 5, "R3": 50}
    assert (info.domain, info.api_level, info.api_total, info.api_errors, info.api_inflight) == (
        "hub",
        5,
        20,
        1,
        2,
    )
    assert info == DOCUMENT
    for other in (copy.copy(info), copy.deepcopy(info), pickle.loads(pickle.dumps(info))):
        assert (other, other.usage, other.tiers) == (info, info.usage, info.tiers)


def test_of_an_older_server() -> None:
    info = AccountInfo({"memory": 0, "storage": 0, "streams": 1, "api": {"total": 3}})
    assert (info.usage.reserved_storage, info.usage.limits, info.tiers) == (0, AccountLimits(), {})
    assert (info.domain, info.api_level, info.api_inflight) == (None, None, 0)


@pytest.mark.parametrize(
    "document",
    [
        {"memory": -1},
        {"streams": "1"},
        {"limits": []},
        {"limits": {"max_memory": "1"}},
        {"limits": {"max_bytes_required": 1}},
        {"api": [1]},
        {"api": {"level": "5"}},
        {"tiers": [1]},
        {"tiers": {"R1": {"limits": 5}}},
    ],
)
def test_no_account(document: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        AccountInfo(document)
