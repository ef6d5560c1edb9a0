"""NUIDs: their form, their uniqueness, forks."""

from __future__ import annotations

import os
import string
import threading
from pathlib import Path

import pytest

import natsproto
from natsproto import nuid
from natsproto.nuid import Nuid, next_nuid, random_below, secret_name


def test_form() -> None:
    for value in (next_nuid(), Nuid().next()):
        assert len(value) == 22
        assert set(value) <= set(string.ascii_letters + string.digits)


def test_unique() -> None:
    source = Nuid()
    values = [source.next() for _ in range(10_000)]
    assert len(set(values)) == len(values)
    assert len({value[:12] for value in values}) == 1
    assert Nuid().next()[:12] != values[0][:12]


def test_counts_up_in_steps() -> None:
    source = Nuid(rng=lambda limit: 0)
    assert source.next() == "0" * 22
    assert source.next() == "0" * 21 + "X"  # the smallest step is 33
    source = Nuid(rng=lambda limit: limit - 1)
    assert source.next() == "z" * 22


def test_new_prefix_on_overflow() -> None:
    numbers = iter([1] * 12 + [0, nuid._SEQUENCES - 1] + [2] * 12 + [0, 7])
    source = Nuid(rng=lambda limit: next(numbers))
    assert source.next() == "1" * 12 + "z" * 10
    assert source.next() == "2" * 12 + "0000000007"


def test_threads_share_a_source() -> None:
    source = Nuid()
    values: list[str] = []

    def work() -> None:
        values.extend([source.next() for _ in range(2000)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(values)) == 8000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_forked_child_starts_anew() -> None:
    own = Nuid()
    own.next()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, (own.next() + next_nuid()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        child = pipe.read().decode()
    assert os.waitpid(pid, 0)[1] == 0
    assert len(child) == 44
    assert child[:12] != own.next()[:12]
    assert child[22:34] != next_nuid()[:12]


def test_random_below_is_in_range_and_reaches_both_ends() -> None:
    values = {random_below(5) for _ in range(500)}
    assert values == set(range(5))
    assert random_below(1) == 0


def test_secret_names_have_nothing_in_common() -> None:
    names = [secret_name() for _ in range(2000)]
    assert {len(name) for name in names} == {22}
    assert set("".join(names)) <= set(string.ascii_letters + string.digits + "-_")
    for at in range(0, 20, 4):
        assert len({name[at : at + 4] for name in names}) > 1990


def test_only_objects_are_named_by_nuids() -> None:
    """Who sees one of them can guess the others: nothing that is to stay unknown may be named so."""
    root = Path(natsproto.__file__).parents[1]
    users = {
        str(path.relative_to(root))
        for package in ("natsproto", "objstore")
        for path in (root / package).rglob("*.py")
        if "next_nuid(" in path.read_text()
    }
    assert users == {
        "natsproto/nuid.py",
        "natsproto/testing/plugin.py",  # buckets of tests
        "objstore/_atomic.py",
        "objstore/_chunks.py",
        "objstore/_links.py",
        "objstore/_rename.py",
        "objstore/_upload.py",
    }
