"""Headers of any size: the same behaviour as a plain list of pairs, and linear time in every access."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproto.headers import Headers, encode_headers, parse_headers

MANY = 50_000
BOUND = 10.0
"""Seconds of the processor; linear work takes less than one, quadratic work more than a minute."""


class Model:
    """What :class:`Headers` promises, by the simplest means."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = list(pairs)

    def add(self, name: str, value: str) -> None:
        self.pairs.append((name, value))

    def set(self, name: str, values: list[str]) -> None:
        places = [i for i, (key, _) in enumerate(self.pairs) if key.lower() == name.lower()]
        at = places[0] if places else len(self.pairs)
        rest = [pair for i, pair in enumerate(self.pairs) if i > at and i not in places]
        self.pairs[at:] = [(name, value) for value in values] + rest

    def delete(self, name: str) -> bool:
        kept = [pair for pair in self.pairs if pair[0].lower() != name.lower()]
        found = len(kept) < len(self.pairs)
        self.pairs = kept
        return found

    def names(self) -> list[str]:
        first: dict[str, str] = {}
        for key, _ in self.pairs:
            first.setdefault(key.lower(), key)
        return list(first.values())

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key.lower() == name.lower()]


NAME = st.sampled_from(["a", "A", "b", "B", "c", "D", "e"])
VALUES = st.lists(st.sampled_from(["1", "2", "3"]), max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), NAME, VALUES),
        st.tuples(st.just("set"), NAME, VALUES),
        st.tuples(st.just("delete"), NAME, VALUES),
        st.tuples(st.just("copy"), NAME, VALUES),
    ),
    max_size=25,
)


@given(st.lists(st.tuples(NAME, st.just("0")), max_size=8), STEPS, st.booleans())
def test_like_a_list_of_pairs(pairs: list[tuple[str, str]], steps: list[Any], look: bool) -> None:
    headers, model = Headers(pairs), Model(pairs)
    for kind, name, values in steps:
        if kind == "add":
            for value in values:
                headers.add(name, value)
                model.add(name, value)
        elif kind == "set":
            headers[name] = values
            model.set(name, values)
        elif kind == "copy":
            headers = [headers.copy, lambda h=headers: copy.deepcopy(h), lambda h=headers: copy.copy(h)][
                len(values) % 3
            ]()
        elif model.delete(name):
            del headers[name]
        else:
            with pytest.raises(KeyError):
                del headers[name]
        if look:  # also without looking: a table that was never made must come out the same
            check(headers, model)
    check(headers, model)


def check(headers: Headers, model: Model) -> None:
    assert headers.multi_items() == model.pairs
    assert list(headers) == model.names()
    assert len(headers) == len(model.names())
    for name in "aAbBcDeX":
        assert headers.get_all(name) == model.values(name)
        assert headers.get(name) == (model.values(name) or [None])[0]
        assert (name in headers) is bool(model.values(name))
    assert headers == Headers(model.pairs)
    assert pickle.loads(pickle.dumps(headers)).multi_items() == model.pairs


@given(st.lists(st.tuples(NAME, st.just("0")), max_size=8))
def test_taking_out(pairs: list[tuple[str, str]]) -> None:
    headers, model = Headers(pairs), Model(pairs)
    while headers:
        name, value = headers.popitem()
        assert value == model.values(name)[0]
        assert model.delete(name)
        check(headers, model)
    with pytest.raises(KeyError):
        headers.popitem()
    headers.update(pairs)
    headers.clear()
    check(headers, Model([]))
    headers.add("a", "1")
    check(headers, Model([("a", "1")]))


def test_a_copy_is_independent() -> None:
    first = Headers({"a": ["1", "2"]})
    second = copy.copy(first)
    second["a"] = ["3"]
    second.add("b", "4")
    assert first.multi_items() == [("a", "1"), ("a", "2")]


def set_all(headers: Headers, values: Any = "x") -> None:
    for name in list(headers):
        headers[name] = values


def delete_all(headers: Headers) -> None:
    for name in headers:
        del headers[name]


def delete_backwards(headers: Headers) -> None:
    for name in reversed(list(headers)):
        assert headers.pop(name)


def take_all(headers: Headers) -> None:
    while headers:
        headers.popitem()


ACCESSES: dict[str, Callable[[Headers], Any]] = {
    "dict": dict,
    "items": lambda headers: list(headers.items()),
    "values": lambda headers: list(headers.values()),
    "get": lambda headers: [headers.get(name) for name in headers],
    "get_all": lambda headers: [headers.get_all(name) for name in headers],
    "in": lambda headers: [name in headers for name in headers],
    "len": lambda headers: [len(headers) for _ in headers],
    "equal": lambda headers: headers == dict(headers),
    "set": set_all,
    "set several": lambda headers: set_all(headers, ["x", "y"]),
    "set none": lambda headers: set_all(headers, []),
    "update": lambda headers: headers.update(dict.fromkeys(headers, "x")),
    "setdefault": lambda headers: [headers.setdefault(f"{name}x", "y") for name in headers],
    "delete": delete_all,
    "pop": delete_backwards,
    "popitem": take_all,
    "clear": lambda headers: headers.clear(),
    "encode": encode_headers,
    "copy": lambda headers: headers.copy(),
}


@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES)
@pytest.mark.parametrize("form", ["many names", "many values"])
def test_linear(access: Callable[[Headers], Any], form: str) -> None:
    name = "k{}" if form == "many names" else "K"
    lines = "".join(f"{name.format(i)}: v\r\n" for i in range(MANY))
    headers = parse_headers(b"NATS/1.0\r\n" + lines.encode() + b"\r\n").headers
    began = time.process_time()
    access(headers)
    assert time.process_time() - began < BOUND
