"""Names that nobody can guess, in forked children either."""

from __future__ import annotations

import os
import string
from concurrent.futures import ThreadPoolExecutor

import pytest

from natsproto.subjects import random_bytes, secret_name


def test_secret_names_have_nothing_in_common() -> None:
    names = [secret_name() for _ in range(2000)]
    assert {len(name) for name in names} == {22}
    assert set("".join(names)) <= set(string.ascii_letters + string.digits + "-_")
    for at in range(0, 20, 4):
        assert len({name[at : at + 4] for name in names}) > 1990


def test_random_bytes_are_given_out_once() -> None:
    """Many are drawn at a time; several threads may ask at once."""
    with ThreadPoolExecutor(8) as pool:
        drawn = [
            each
            for part in pool.map(lambda _: [random_bytes() for _ in range(500)], range(8))
            for each in part
        ]
    assert {len(each) for each in drawn} == {9}
    assert len(set(drawn)) == len(drawn)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_names_of_its_own() -> None:
    random_bytes()  # draws more than it returns
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, secret_name().encode() + random_bytes())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    child, drawn = told[:-9].decode(), told[-9:]
    assert len(child) == 22
    assert child != secret_name()
    assert drawn not in [random_bytes() for _ in range(64)]
