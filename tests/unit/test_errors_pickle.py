"""Every error of both packages pickles and copies with its text and its attributes."""

import copy
import importlib
import inspect
import pickle
import pkgutil

import pytest

import natsproto
import objstore
from natsproto.errors import APIError, MissingExtraError, NatsError, NoServersError, RemoteProtocolError
from natsproto.wire import Err, Info, Msg, Ping, Pub


def tree(root: type) -> list[type]:
    found = [root]
    for each in root.__subclasses__():
        found += tree(each)
    return list(dict.fromkeys(found))


def every_error() -> list[type[NatsError]]:
    for package in (natsproto, objstore):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    return [each for each in tree(NatsError) if each.__module__.split(".")[0] in ("natsproto", "objstore")]


ERRORS = every_error()


def value_for(parameter: inspect.Parameter) -> object:
    if "int" in str(parameter.annotation):
        return 17
    if "list" in str(parameter.annotation):
        return [("nats://somewhere", OSError(2, "no such file"))]
    return f"some {parameter.name}"


def example(kind: type[NatsError]) -> NatsError:
    """One with a value for everything its constructor takes."""
    if "__init__" not in {
        name for each in kind.__mro__ if each.__module__ != "builtins" for name in vars(each)
    }:
        return kind("what happened")
    args, named = [], {}
    for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value_for(parameter)
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            args.append(value_for(parameter))
    return kind(*args, **named)


WAYS = {
    **{
        f"pickle {protocol}": lambda exc, protocol=protocol: pickle.loads(pickle.dumps(exc, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def comparable(facts: dict[str, object]) -> dict[str, object]:
    return {key: repr(value) for key, value in facts.items()}  # exceptions are equal to themselves only


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_round_trip(kind, way):
    exc = example(kind)
    exc.add_note("and a note")
    again = way(exc)
    assert type(again) is kind
    assert str(again) == str(exc)
    assert again.args == exc.args
    assert comparable(vars(again)) == comparable(vars(exc))
    assert str(way(again)) == str(exc)  # a second time nothing is added


def test_the_tree_is_whole():
    names = {kind.__name__ for kind in ERRORS}
    assert {
        "APIError",
        "WrongLastSequenceError",
        "MetaDecodeError",
        "ScriptError",
        "OutOfOrderError",
    } <= names
    assert len(ERRORS) > 50


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_the_standard_library_keeps(way):
    assert way(MissingExtraError("this needs that", "ws")).msg.startswith("this needs that. Install")
    attempts = way(NoServersError("m", attempts=[("u", ConnectionRefusedError(111, "refused"))])).attempts
    assert (attempts[0][1].errno, attempts[0][1].strerror) == (111, "refused")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_events_of_a_broken_stream(way):
    """Events that came before the error go along, a placed payload as bytes."""
    view = memoryview(bytearray(b"payload"))
    events = [
        Msg(b"s", b"1", None, None, view),
        Pub(b"s", None, b"h", view),
        Info({"a": 1}),
        Ping(),
        Err("x"),
    ]
    again = way(RemoteProtocolError("broken", position=7, events=events))
    assert again.position == 7
    assert again.events == events


class Mine(APIError):
    """An application's own, with a constructor of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(500, number, "mine")
        self.number = number


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_applications_own_error(way):
    again = way(Mine(3))
    assert type(again) is Mine
    assert (again.number, again.err_code, str(again)) == (3, 3, str(Mine(3)))
