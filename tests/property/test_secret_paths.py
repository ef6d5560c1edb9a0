"""What is taken for a secret where a path belongs, and what is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from natsproto.aio.auth import looks_secret
from support.nkeys import ACCOUNT, OPERATOR, USER, Key, encode_seed

SEEDS = st.builds(
    encode_seed, st.sampled_from([ACCOUNT, OPERATOR, USER]), st.binary(min_size=32, max_size=32)
)

WORDS = """accounts alice backup certs client config creds credentials etc home keys local nats nsc operator
photos production prod sales samples sand saturday saxony scan scratch secret server share snapshot snow
source south storage sunday sunset super support svc system tmp user users usr var work São über"""

NAMES = st.builds(
    lambda words, between, number, end: between.join(words) + number + end,
    st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=4),
    st.sampled_from(["", " ", "-", "_", ".", ", "]),
    st.one_of(st.just(""), st.integers(0, 99_999).map(str), st.dates().map(str), st.datetimes().map(str)),
    st.sampled_from(["", ".creds", ".nk", ".pem", ".json", " (2)", "~"]),
).flatmap(lambda name: st.sampled_from([name, name.upper(), name.title(), name.title().replace(" ", "")]))

MADE = st.one_of(
    st.uuids().map(str),
    st.binary(min_size=16, max_size=32).map(bytes.hex),
    st.datetimes().map(lambda when: when.strftime("snapshot%Y%m%dT%H%M%SZ")),
    st.binary(min_size=32, max_size=32).map(lambda raw: Key(USER, raw).public + ".nk"),
)

PATHS = st.builds(
    lambda start, parts: start + "/".join(parts),
    st.sampled_from(["", "/", "./", "~/", "../"]),
    st.lists(st.one_of(NAMES, MADE), min_size=1, max_size=5),
)


@given(PATHS)
def test_ordinary_paths(path: str) -> None:
    assert not looks_secret(path)


@given(SEEDS, st.integers(40, 58), st.data())
def test_damaged_seeds(seed: str, length: int, data: st.DataObject) -> None:
    """Cut off, with up to two typos, in either case, in groups, below a directory."""
    text = seed[:length]
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(2, len(text) - 1))
        text = text[:at] + data.draw(st.sampled_from("0189" + text[at].lower())) + text[at + 1 :]
    size = data.draw(st.sampled_from([4, 5, 6, 8, 58]))
    groups = [text[at : at + size] for at in range(0, len(text), size)]
    text = data.draw(st.sampled_from([" ", "-"])).join(groups)
    text = text.lower() if data.draw(st.booleans()) else text
    assert looks_secret(data.draw(st.sampled_from(["", "/home/me/", " "])) + text)
