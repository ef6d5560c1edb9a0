"""Several things at once: what fails is told, and does not stop the others."""

from __future__ import annotations

import asyncio
import errno
from types import SimpleNamespace
from typing import Any

import pytest

from natsproto.errors import ConnectionClosedError, RequestTimeoutError
from objstore import BucketNotFoundError, ObjectNotFoundError, OutcomeUnknownError
from objstore.cli.output import CommandError, Output
from objstore.cli.several import AT_ONCE, each
from objstore.read.parts import NotWhole


async def test_one_failure_does_not_stop_the_others(capsys: Any) -> None:
    done = []

    async def work(item: int) -> None:
        await asyncio.sleep(0)
        if item == 3:
            raise CommandError("no three", 4)
        if item == 7:
            raise ObjectNotFoundError("object '7' is not there", bucket="b", name="7")
        done.append(item)

    with pytest.raises(CommandError, match="test: 2 of 20 failed") as told:
        await each(range(20), work, Output(), command="test")
    assert told.value.code == 4
    assert str(told.value.__cause__) == "no three"
    assert sorted(done) == [item for item in range(20) if item not in (3, 7)]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "objstore: 3: no three"
    assert lines[1].startswith("objstore: object '7' is not there")
    assert len(lines) == 2


async def test_the_failure_of_a_single_thing_is_its_own() -> None:
    async def work(item: int) -> None:
        raise CommandError("alone", 3)

    with pytest.raises(CommandError, match=r"^alone$") as told:
        await each([1], work, Output(), command="test")
    assert told.value.code == 3
    await each([], work, Output(), command="test")


async def test_what_fails_for_all_ends_the_work(capsys: Any) -> None:
    """The server is gone: one line, and nobody waits for the rest."""
    begun = []

    async def work(item: int) -> None:
        begun.append(item)
        if item == 2:
            raise ConnectionClosedError("the server is gone")
        if item > 0:
            await asyncio.Event().wait()

    with pytest.raises(CommandError, match="1 of 100 failed, and 98 were given up") as told:
        await each(range(100), work, Output(), command="test")
    assert told.value.code == 5
    assert len(begun) <= AT_ONCE + 2
    assert capsys.readouterr().err.count("\n") == 1


async def test_an_object_that_others_keep_changing_ends_nothing() -> None:
    async def work(item: int) -> None:
        if item == 2:
            raise NotWhole("object '2' could not be read whole")

    with pytest.raises(CommandError, match=r"test: 1 of 100 failed$") as told:
        await each(range(100), work, Output(), command="test")
    assert told.value.code == 5


@pytest.mark.parametrize("contested", [range(3, 5), range(10, 100, 4)], ids=["neighbours", "many"])
async def test_contested_objects_end_nothing(contested: range) -> None:
    """What others do to a name at that moment says nothing of the rest."""
    done = []

    async def work(item: int) -> None:
        await asyncio.sleep(0)
        if item in contested:
            raise OutcomeUnknownError("whether it was stored is not known", bucket="b", name=str(item))
        done.append(item)

    with pytest.raises(CommandError, match=rf"test: {len(contested)} of 100 failed$") as told:
        await each(range(100), work, Output(), command="test", client=_client(connected=True))
    assert told.value.code == 5
    assert sorted(done) == [item for item in range(100) if item not in contested]


@pytest.mark.parametrize(("connected", "failures"), [(True, AT_ONCE), (False, 1)])
async def test_a_server_that_does_not_answer_ends_all(connected: bool, failures: int) -> None:
    """Not each of thousands waits until it is given up; what fails for another reason shows no server."""

    async def work(item: int) -> None:
        await asyncio.sleep(0)
        if 5 <= item < 10:
            raise CommandError("the name is refused", 2)
        if item >= 10:
            raise RequestTimeoutError("no answer")

    with pytest.raises(CommandError, match=rf"test: {5 + failures} of 1000 failed, and \d+ were given up"):
        await each(range(1000), work, Output(), command="test", client=_client(connected=connected))


async def test_the_bucket_is_asked_before_all_is_given_up() -> None:
    """While it has a server, what does not answer is something else; once it has none, that ends all."""
    there = True

    async def info(stream: str, *, timeout: float) -> None:
        assert stream == "OBJ_b"
        if not there:
            raise RequestTimeoutError("no answer")

    async def work(item: int) -> None:
        nonlocal there
        await asyncio.sleep(0)
        there = item < 500
        raise RequestTimeoutError("no answer")

    bucket = SimpleNamespace(stream="OBJ_b", js=SimpleNamespace(stream_info=info))
    store: Any = SimpleNamespace(bucket="b", bound_bucket=bucket)
    with pytest.raises(CommandError, match=r"test: 5\d\d of 1000 failed, and 4\d\d were given up"):
        await each(
            range(1000), work, Output(), command="test", client=_client(connected=True), stores=[store]
        )


@pytest.mark.parametrize("told", [False, True])
async def test_a_full_disk_ends_all(told: bool) -> None:
    async def work(item: int) -> None:
        try:
            raise OSError(errno.ENOSPC if item == 20 else errno.EACCES, "no", f"{item}")
        except OSError as exc:
            if told:
                raise CommandError("cannot be written", 1) from exc
            raise

    with pytest.raises(CommandError, match=r"test: 2\d of 100 failed, and 7\d were given up$"):
        await each(range(100), work, Output(), command="test")


async def test_another_bucket_that_is_gone_ends_nothing() -> None:
    async def work(item: int) -> None:
        raise BucketNotFoundError("gone", bucket="b" if item == 50 else "other")

    store: Any = SimpleNamespace(bucket="b")
    with pytest.raises(CommandError, match=r"test: 5\d of 100 failed, and 4\d were given up$"):
        await each(range(100), work, Output(), command="test", stores=[store])


def _client(*, connected: bool) -> Any:
    return SimpleNamespace(is_connected=connected)


async def test_no_more_than_allowed_at_once() -> None:
    now = most = 0

    async def work(item: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    await each(range(50), work, Output(), command="test", at_once=3)
    assert most == 3


async def test_an_interrupt_ends_all() -> None:
    ended = []

    async def work(item: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(item)

    task = asyncio.ensure_future(each(range(50), work, Output(), command="test"))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(ended) == AT_ONCE
