"""How much a pull asks for by default, and what comes after it."""

from __future__ import annotations

from typing import Any

import pytest

from natsproto.errors import ConfigError
from natsproto.jetstream.api.models import ConsumerInfo
from natsproto.jetstream.api.statuses import MaxBytesError, PullLimitError
from natsproto.jetstream.consumers import ENVELOPE, MOST_BYTES, UNLIMITED_BYTES, bounds
from natsproto.wire import Pub
from support.pulls import Pulled

KIB, MIB = 1024, 1024 * 1024
NEW = {"metadata": {"_nats.level": "1"}}
"""What servers from 2.11 on add to a configuration."""

FULL = "409 Message Size Exceeds MaxBytes"
REFUSED = "409 Exceeded MaxRequestMaxBytes of 1000"


@pytest.fixture
async def pulled() -> Pulled:
    return Pulled(NEW)


def asked(pulled: Pulled) -> list[tuple[int, int | None]]:
    return [(request["batch"], request.get("max_bytes")) for request in pulled.requests]


@pytest.mark.parametrize(
    ("config", "batch", "payload", "expected"),
    [
        (NEW, 1, MIB, (1, None)),
        (NEW, 7, MIB, (7, None)),  # they fit in any case
        (NEW, 8, MIB, (8, MOST_BYTES)),
        (NEW, 100, MIB, (100, MOST_BYTES)),
        (NEW, 100, 64 * KIB, (100, None)),
        (NEW, 1, 64 * MIB, (1, None)),  # one comes whatever its size
        ({**NEW, "max_bytes": 1000}, 1, 64 * MIB, (1, None)),
        (NEW, 2, 64 * MIB, (2, 64 * MIB + ENVELOPE)),
        (NEW, 100, 64 * MIB, (100, 64 * MIB + ENVELOPE)),
        ({**NEW, "max_bytes": 1000}, 100, MIB, (100, 1000)),
        ({**NEW, "max_bytes": 9 * MIB}, 100, MIB, (100, MOST_BYTES)),
        ({**NEW, "max_bytes": -1}, 100, MIB, (100, MOST_BYTES)),
        ({**NEW, "max_bytes": 1000}, 2, MIB, (2, None)),
        ({**NEW, "deliver_policy": "last_per_subject"}, 100, MIB, (15, None)),
        ({**NEW, "deliver_policy": "last_per_subject"}, 10, MIB, (10, None)),
        ({}, 100, MIB, (15, None)),
        ({"metadata": None}, 100, MIB, (15, None)),
        ({}, 100, 128 * KIB, (100, None)),
        ({}, 100, 64 * MIB, (1, None)),
        ({"ack_policy": "explicit"}, 100, MIB, (15, None)),
        ({"ack_policy": "none"}, 100, MIB, (100, MOST_BYTES)),  # nothing is delivered again
        ({"ack_policy": "none", "deliver_policy": "last_per_subject"}, 100, MIB, (15, None)),
    ],
)
def test_bounds(config: dict[str, Any], batch: int, payload: int, expected: tuple[int, int | None]) -> None:
    info = ConsumerInfo.from_json({"stream_name": "S", "name": "c", "config": config})
    assert bounds(info, batch, payload) == expected
    assert expected[0] * (payload + ENVELOPE) <= max(UNLIMITED_BYTES, payload + ENVELOPE) or expected[1]


async def test_a_message_above_the_limit_of_the_consumer(pulled: Pulled) -> None:
    """It is asked for alone, without a limit: else it would be asked for over and over."""
    pulled.now({"num_pending": 1, "config": NEW})
    pulled.answers = [pulled.says(FULL), pulled.says(1), pulled.says(100)]
    assert await pulled.read(3) == [b"m1", b"m2", b"m3"]
    assert asked(pulled)[:2] == [(100, MOST_BYTES), (1, None)]


async def test_a_fetch_that_is_full(pulled: Pulled) -> None:
    pulled.answers = [pulled.says(8, FULL)]
    assert [msg.data for msg in await pulled.consumer.fetch(100)] == [b"m%d" % n for n in range(1, 9)]
    assert asked(pulled) == [(100, MOST_BYTES)]
    assert isinstance(pulled.consumer.last_end, MaxBytesError)
    assert pulled.asked == 0


async def test_an_iteration_over_what_is_full(pulled: Pulled, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks again at once: a pause would be an error here."""
    monkeypatch.setattr("natsproto.jetstream.pull.FIRST_PAUSE", "no pause")
    pulled.answers = [pulled.says(8, FULL), pulled.says(3, FULL), pulled.says(100)]
    assert await pulled.read(30) == [b"m%d" % n for n in range(1, 31)]
    assert asked(pulled) == 3 * [(100, MOST_BYTES)]
    assert pulled.reported == []
    assert pulled.asked == 0


@pytest.mark.parametrize("end", [FULL, REFUSED])
async def test_a_message_that_does_not_fit_at_all(pulled: Pulled, end: str) -> None:
    """Another server takes larger messages than this one; or the consumer's limit has been changed."""
    pulled.now({"num_pending": 1, "config": {**NEW, "max_bytes": 1000}})
    pulled.answers = [
        pulled.says(end),
        pulled.says(1),
        pulled.says(end),
        pulled.says(1),
        pulled.says(8, FULL),
    ]
    assert len(await pulled.consumer.fetch(100)) == 1
    assert asked(pulled) == [(100, MOST_BYTES), (1, None)]
    assert await pulled.read(5) == [b"m%d" % n for n in range(2, 7)]
    assert asked(pulled)[2:] == [(100, 1000), (1, None), (100, 1000)]  # the server has told the limit
    assert pulled.reported == []


@pytest.mark.parametrize(("end", "error"), [(FULL, MaxBytesError), (REFUSED, PullLimitError)])
async def test_bytes_of_the_caller(pulled: Pulled, end: str, error: type[Exception]) -> None:
    pulled.now({"num_pending": 1, "config": {**NEW, "max_bytes": 1000}})
    pulled.answers = [pulled.says(end)]
    with pytest.raises(error):
        await pulled.consumer.fetch(100, max_bytes=2000)
    with pytest.raises(error):
        await pulled.read(1, max_bytes=2000)
    assert asked(pulled) == 2 * [(100, 2000)]


async def test_other_limits_are_errors(pulled: Pulled) -> None:
    pulled.now({"config": {**NEW, "max_batch": 5}})
    pulled.answers = [pulled.says("409 Exceeded MaxRequestBatch of 5")]
    with pytest.raises(PullLimitError):
        await pulled.consumer.fetch(100)
    with pytest.raises(PullLimitError):
        await pulled.read(1)
    assert len(pulled.requests) == 2


class TestFewerMessages:
    """Of servers that lose what does not fit."""

    @pytest.fixture
    async def pulled(self) -> Pulled:
        return Pulled({})

    def full(self, pulled: Pulled, pub: Pub) -> None:
        pulled.says(pulled.requests[-1]["batch"])(pub)

    async def test_a_fetch_asks_until_it_has_all(self, pulled: Pulled) -> None:
        pulled.answers = [lambda pub: self.full(pulled, pub)]
        found = await pulled.consumer.fetch(100, timeout=40)
        assert [msg.seq for msg in found] == list(range(1, 101))
        assert asked(pulled) == 6 * [(15, None)] + [(10, None)]
        expiries = [request["expires"] for request in pulled.requests]
        assert expiries == sorted(set(expiries), reverse=True)
        assert pulled.requests[-1]["idle_heartbeat"] == 5_000_000_000

    async def test_or_until_there_is_no_more(self, pulled: Pulled) -> None:
        pulled.answers = [pulled.says(15), pulled.says(5, "404 No Messages")]
        assert len(await pulled.consumer.fetch(100, no_wait=True)) == 20
        assert [sorted(request) for request in pulled.requests] == 2 * [["batch", "no_wait"]]

    async def test_or_until_it_has_enough(self, pulled: Pulled, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("natsproto.jetstream.consumers.MOST_BYTES", 100)
        pulled.answers = [lambda pub: self.full(pulled, pub)]
        found = await pulled.consumer.fetch(1000)
        assert len(found) == 45
        assert sum(len(msg.data) for msg in found) >= 100

    @pytest.mark.parametrize("how", ["status", "lost", "closed"])
    async def test_what_has_come_is_kept(self, pulled: Pulled, how: str) -> None:
        def end(pub: Pub) -> None:
            if how == "status":
                pulled.status(pub, "409 Consumer Deleted")
            elif how == "lost":
                pulled.server.lose()

        def first(pub: Pub) -> None:
            self.full(pulled, pub)
            if how == "closed":
                pulled.server.connection.check_open = refuse  # type: ignore[method-assign]

        def refuse() -> None:
            raise ConfigError("stands for any error before the request is sent")

        pulled.now(None)
        pulled.answers = [first, end]
        assert len(await pulled.consumer.fetch(100)) == 15

    async def test_an_iteration(self, pulled: Pulled) -> None:
        pulled.answers = [lambda pub: self.full(pulled, pub)]
        assert len(await pulled.read(100)) == 100
        assert asked(pulled) == 7 * [(15, None)]

    async def test_bytes_of_the_caller(self, pulled: Pulled) -> None:
        pulled.answers = [pulled.says(8, FULL)]
        assert len(await pulled.consumer.fetch(100, max_bytes=2000)) == 8
        assert asked(pulled) == [(100, 2000)]
