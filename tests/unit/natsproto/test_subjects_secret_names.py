"""Names that nobody can guess, in forked children either."""

from __future__ import annotations

import os
import string

import pytest

from natsproto.subjects import secret_name


def test_secret_names_have_nothing_in_common() -> None:
    names = [secret_name() for _ in range(2000)]
    assert {len(name) for name in names} == {22}
    assert set("".join(names)) <= set(string.ascii_letters + string.digits + "-_")
    for at in range(0, 20, 4):
        assert len({name[at : at + 4] for name in names}) > 1990


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_names_of_its_own() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, secret_name().encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        child = pipe.read().decode()
    assert os.waitpid(pid, 0)[1] == 0
    assert len(child) == 22
    assert child != secret_name()
