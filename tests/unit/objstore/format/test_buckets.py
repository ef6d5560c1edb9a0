"""Bucket configurations: what is sent, what is read back, what the server dropped."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproto.errors import RemoteProtocolError
from objstore.cli.output import human_size
from objstore.errors import BadBucketError
from objstore.format import buckets
from objstore.format.models import BucketSource, ObjectStoreConfig, Placement


class TestStreamConfig:
    def test_smallest(self):
        assert buckets.stream_config(ObjectStoreConfig("b")) == {
            "name": "OBJ_b",
            "subjects": ["$O.b.C.>", "$O.b.M.>"],
            "retention": "limits",
            "discard": "new",
            "max_age": 0,
            "max_bytes": -1,
            "storage": "file",
            "num_replicas": 1,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        }

    def test_everything(self):
        doc = buckets.stream_config(
            ObjectStoreConfig(
                "b", "d", timedelta(days=365, microseconds=1), 10 * 2**30, "memory", 3, Placement("c", ("t",
                "u")),
                {"k": "v"}, compression=True, allow_direct=False,
            )
        )  # fmt: skip
        assert doc["description"] == "d"
        assert doc["max_age"] == 365 * 86400 * 10**9 + 1000
        assert doc["max_bytes"] == 10 * 2**30
        assert (doc["storage"], doc["num_replicas"]) == ("memory", 3)
        assert doc["placement"] == {"cluster": "c", "tags": ["t", "u"]}
        assert doc["metadata"] == {"k": "v"}
        assert doc["compression"] == "s2"
        assert doc["allow_direct"] is False
        json.dumps(doc)

    @pytest.mark.parametrize("max_bytes", [0, -1, None])
    def test_no_limit(self, max_bytes):
        assert buckets.stream_config(ObjectStoreConfig("b", max_bytes=max_bytes))["max_bytes"] == -1

    def test_empty_values_are_left_out(self):
        doc = buckets.stream_config(
            ObjectStoreConfig("b", "", timedelta(0), placement=Placement("", []), metadata={})
        )
        assert not {"description", "placement", "metadata", "compression"} & set(doc)

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"bucket": "a b"}, {"bucket": "b\n"}, {"bucket": None}, {"description": 5},
            {"description": "\ud800"},
            {"ttl": 5}, {"ttl": 5.0}, {"ttl": "1d"}, {"ttl": timedelta(seconds=-1)},
            {"ttl": timedelta(milliseconds=99)},
            {"ttl": timedelta.max}, {"max_bytes": -2}, {"max_bytes": 1.5}, {"max_bytes": "1"},
            {"max_bytes": True},
            {"max_bytes": 2**63}, {"storage": "disk"}, {"storage": None}, {"storage": []}, {"replicas": 0},
            {"replicas": 6}, {"replicas": "1"}, {"replicas": True}, {"replicas": None},
            {"placement": {"cluster": "c"}},
            {"placement": Placement(5)}, {"placement": Placement("c", "tag")}, {"placement": Placement("c",
            [1])},
            {"placement": Placement("c", 5)}, {"metadata": []}, {"metadata": {"k": 1}},
            {"metadata": {1: "v"}},
            {"metadata": {"k": "\ud800"}}, {"compression": "s2"}, {"allow_direct": None},
        ],
        ids=repr,
    )  # fmt: skip
    def test_refused(self, kwargs):
        with pytest.raises(BadBucketError):
            buckets.stream_config(ObjectStoreConfig(**({"bucket": "b"} | kwargs)))

    def test_mirror_of_a_bucket_of_the_same_name_in_another_domain(self):
        """It knows the origin's subjects as they are, and answers for it."""
        document = buckets.stream_config(ObjectStoreConfig("b", mirror=BucketSource("b", domain="hub-1")))
        assert document["mirror"] == {"name": "OBJ_b", "external": {"api": "$JS.hub-1.API"}}
        assert document["mirror_direct"] is True
        assert "subjects" not in document

    def test_mirror_of_another_name(self):
        document = buckets.stream_config(ObjectStoreConfig("b", mirror="a"))
        transforms = [{"src": "$O.a.>", "dest": "$O.b.>"}]
        assert document["mirror"] == {"name": "OBJ_a", "subject_transforms": transforms}
        assert "mirror_direct" not in document

    def test_round_trip(self):
        config = ObjectStoreConfig(
            "b", "d", timedelta(hours=1), 5000, "memory", 3, Placement("c", ("t",)), {"k": "v"},
            compression=True, allow_direct=False,
        )  # fmt: skip
        assert buckets.bucket_config(buckets.stream_config(config)) == config
        assert buckets.bucket_config(buckets.stream_config(ObjectStoreConfig("b"))) == ObjectStoreConfig("b")
        tagged = ObjectStoreConfig("b", placement=Placement(tags=("t",)))
        assert buckets.bucket_config(buckets.stream_config(tagged)) == tagged


class TestStatus:
    def test_of_a_server_answer(self):
        config = buckets.stream_config(ObjectStoreConfig("b", "d", timedelta(hours=1), metadata={"k": "v"}))
        config["metadata"] |= {"_nats.level": "1", "_nats.ver": "2.15.1"}
        status = buckets.store_status({"config": config | {"sealed": True}, "state": {"bytes": 55}}, 3)
        assert (status.bucket, status.description, status.ttl) == ("b", "d", timedelta(hours=1))
        assert (status.storage, status.replicas, status.sealed) == ("file", 1, True)
        assert (status.size, status.count, status.backing_store) == (55, 3, "JetStream")
        assert status.metadata == {"k": "v"}
        assert status.stream == "OBJ_b"

    def test_of_little(self):
        status = buckets.store_status({"config": {"name": "OBJ_OBJ_b", "max_age": 0}}, 0)
        assert (status.bucket, status.ttl, status.sealed, status.size) == ("OBJ_b", None, False, 0)
        assert (status.max_bytes, status.allow_direct, status.compression) == (-1, False, False)


WRONG = {
    "config": [
        {"name": 5},
        {"description": ["d"]},
        {"max_age": "1"},
        {"max_age": 10**400},
        {"max_bytes": True},
        {"max_bytes": 1.5},
        {"storage": {"a": 1}},
        {"num_replicas": "3"},
        {"placement": {"cluster": [1]}},
        {"placement": {"cluster": "c", "tags": 5}},
        {"placement": {"tags": "ab"}},
        {"placement": {"tags": [{}]}},
        {"metadata": {"k": 5}},
        {"compression": 1},
        {"sources": 5},
        {"sources": {"a": 1}},
    ],
    "state": [
        {"bytes": "x"},
        {"bytes": [1]},
        {"bytes": True},
        {"bytes": 10**400},
        {"messages": {"a": 1}},
        {"consumer_count": 1.5},
    ],
    "created": [{"created": each} for each in ("yesterday", "2026-01-01", "9999-12-31T23:59:59.9-23:59", 5)],
}


@pytest.mark.parametrize(
    ("where", "number"), [(where, number) for where in WRONG for number in range(len(WRONG[where]))]
)
def test_an_answer_with_a_field_of_another_type(where, number):
    change = WRONG[where][number]
    answer = {"config": buckets.stream_config(ObjectStoreConfig("b")), "state": {"bytes": 5}}
    changed = change if where == "created" else {where: {**answer[where], **change}}
    with pytest.raises(RemoteProtocolError):
        buckets.store_status({**answer, **changed}, 0)
    if where == "config":
        with pytest.raises(RemoteProtocolError):
            buckets.bucket_config(changed["config"])


def test_numbers_of_the_api():
    config = buckets.stream_config(ObjectStoreConfig("b"))
    for number in (-(1 << 63), (1 << 64) - 1):
        status = buckets.store_status(
            {"config": {**config, "max_age": number, "max_bytes": number}, "state": {"bytes": number}}, 0
        )
        assert status.size == status.max_bytes == number
        assert human_size(number)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
SUBJECT = st.sampled_from(["$O.media.>", "$O.b.>", "$O.media.M.>", "other.>"])
TRANSFORMS = st.lists(st.fixed_dictionaries({"src": SUBJECT, "dest": SUBJECT}), max_size=2)
EXTERNAL = st.fixed_dictionaries(
    {"api": st.sampled_from(["$JS.hub.API", "hub.API", "$JS.API", "", "$JS.a b.API", "a.$JS.hub.API"])},
    optional={"deliver": st.sampled_from(["hub.deliver", ""]), "unheard": JSON},
)
SOURCE = st.fixed_dictionaries(
    {"name": st.sampled_from(["OBJ_media", "OBJ_other", "OBJ_b", "media", "EVENTS", "not+one"])},
    optional={
        "opt_start_seq": st.integers(0, 2**64 - 1),
        "opt_start_time": st.just("2026-01-01T00:00:00Z"),
        "filter_subject": SUBJECT,
        "subject_transforms": TRANSFORMS | st.none(),
        "external": EXTERNAL,
        "domain": st.just("hub"),
        "unheard": JSON,
    },
)
STREAM = st.fixed_dictionaries(
    {"name": st.just("OBJ_b"), "storage": st.sampled_from(["file", "memory"])},
    optional={
        "description": st.text(max_size=5),
        "subjects": st.just(["$O.b.>", "more.>"]),
        "retention": st.sampled_from(["limits", "interest"]),
        "discard": st.sampled_from(["old", "new"]),
        "max_age": st.just(0) | st.integers(10**8, 10**15),
        "max_bytes": st.integers(-1, 10**12),
        "max_msgs": st.integers(-1, 9),
        "num_replicas": st.integers(0, 7),
        "placement": st.fixed_dictionaries(
            {}, optional={"cluster": st.text(max_size=3), "tags": st.just(["t"]), "preferred": st.just("n1")}
        ),
        "compression": st.sampled_from(["none", "s2", "zstd"]),
        "metadata": st.dictionaries(st.sampled_from(["k", "_nats.ver", "l"]), st.text(max_size=3)),
        "allow_rollup_hdrs": st.booleans(),
        "allow_direct": st.booleans(),
        "mirror_direct": st.booleans(),
        "mirror": SOURCE,
        "sources": st.lists(SOURCE, max_size=3),
        "unheard": JSON,
    },
)
VALUES = {
    "description": "a new description",
    "ttl": timedelta(days=400),
    "max_bytes": 2 * 10**12,
    "replicas": 4,
    "placement": Placement("a cluster"),
    "metadata": {"new": "pair"},
    "compression": True,
    "allow_direct": True,
    "allow_atomic": True,
    "allow_msg_ttl": True,
    "mirror": BucketSource("new"),
    "sources": (BucketSource("new"),),
}
KEYS = {"ttl": "max_age", "replicas": "num_replicas"}


def updated(current, **fields):
    """Return the configuration that an update with those keywords sends back."""
    wanted = buckets.stream_config(ObjectStoreConfig("b", **fields))
    return buckets.merge_config(current, buckets.changes_of(current, wanted, fields.keys()))


def without(document, *keys):
    return {key: value for key, value in document.items() if key not in keys}


class TestUpdate:
    @given(STREAM, st.sampled_from(sorted(VALUES.keys() - {"mirror", "allow_direct"})))
    def test_a_keyword_changes_its_field_only(self, current, name):
        sent = updated(current, **{name: VALUES[name]})
        key = KEYS.get(name, name)
        assert without(sent, key) == without(current, key)
        there, wanted = buckets.bucket_config(sent), VALUES[name]
        assert getattr(there, name) == wanted

    @given(STREAM)
    def test_a_mirror_follows_direct_reads(self, current):
        sent = updated(current, allow_direct=not current.get("allow_direct"))
        assert bool(sent["allow_direct"]) != bool(current.get("allow_direct"))
        assert without(sent, "allow_direct", "mirror_direct") == without(
            current, "allow_direct", "mirror_direct"
        )
        mirror = current.get("mirror")
        if mirror is None:
            assert sent.get("mirror_direct") == current.get("mirror_direct")
        else:
            partly = mirror.get("subject_transforms") or mirror.get("filter_subject")
            assert sent.get("mirror_direct") == (True if sent["allow_direct"] and not partly else None)

    @given(STREAM)
    def test_what_reads_the_same_stays(self, current):
        """Whatever is asked for as it is read: keywords, or a whole configuration."""
        there = buckets.bucket_config(current)
        for name in VALUES:
            try:
                assert updated(current, **{name: getattr(there, name)}) == current
            except BadBucketError:  # it reads as what no bucket may have, such as itself as a source
                assert name in ("mirror", "sources", "replicas")
        try:
            wanted = buckets.stream_config(there)
        except BadBucketError:
            return
        sent = buckets.merge_config(current, buckets.changes_of(current, wanted))
        needed = ("retention", "discard", "subjects", "allow_rollup_hdrs")
        assert without(sent, *needed) == without(current, *needed)

    @given(STREAM)
    def test_the_name_alone_mends(self, current):
        sent = updated(current)
        needed = ("retention", "discard", "subjects", "allow_rollup_hdrs")
        assert without(sent, *needed) == without(current, *needed)
        assert (sent["retention"], sent["discard"]) == ("limits", "new")
        if "mirror" in current:
            assert "subjects" not in sent
            assert sent.get("allow_rollup_hdrs") == current.get("allow_rollup_hdrs")
        else:
            assert sent["subjects"] == ["$O.b.C.>", "$O.b.M.>"]
            assert sent["allow_rollup_hdrs"] is True

    @given(st.lists(SOURCE, max_size=4), st.lists(st.sampled_from(["media", "other", "new"]), unique=True))
    def test_no_source_is_pointed_elsewhere(self, sources, names):
        """Those that stay are as they were; those that come are as a new bucket's."""
        current = {"name": "OBJ_b", "sources": sources}
        before = buckets.bucket_config(current).sources
        sent = updated(current, sources=[BucketSource(name) for name in names]).get("sources", [])
        new = buckets.stream_config(ObjectStoreConfig("b", sources=names)).get("sources", [])
        kept = [
            source
            for there, source in zip(before, sources, strict=True)
            if there.domain is None and there.bucket in names
        ]
        come = [source for name, source in zip(names, new, strict=True) if BucketSource(name) not in before]

        def order(source):
            return json.dumps(source, sort_keys=True)

        assert sorted(sent, key=order) == sorted(kept + come, key=order)

    def test_a_mirror_becomes_a_bucket(self):
        current = {"name": "OBJ_b", "mirror": {"name": "OBJ_a"}, "mirror_direct": True, "max_msgs": 5}
        sent = updated(current, mirror=None)
        assert sent == {
            "name": "OBJ_b",
            "max_msgs": 5,
            "retention": "limits",
            "discard": "new",
            "subjects": ["$O.b.C.>", "$O.b.M.>"],
            "allow_rollup_hdrs": True,
        }

    def test_metadata_of_the_server_stays(self):
        current = {"name": "OBJ_b", "metadata": {"_nats.ver": "2.15.1", "k": "v"}}
        assert updated(current, metadata={"l": "w"})["metadata"] == {"_nats.ver": "2.15.1", "l": "w"}
        assert updated(current, metadata=None)["metadata"] == {"_nats.ver": "2.15.1"}
        assert "metadata" not in updated({"name": "OBJ_b", "metadata": {"k": "v"}}, metadata=None)


class TestEcho:
    @pytest.mark.parametrize("echo", [5, "t", {"t": 1}, [5], [{}], [["t"]], ["t", 5]], ids=repr)
    def test_a_field_of_another_type(self, echo):
        wanted = {"placement": {"tags": ["t"]}}
        assert buckets.config_matches({"placement": {"tags": echo}}, wanted) == ["placement"]

    WANTED = buckets.stream_config(
        ObjectStoreConfig(
            "b",
            "d",
            timedelta(hours=1),
            placement=Placement("c", ["t"]),
            metadata={"k": "v"},
            compression=True,
        )
    )

    def test_what_is_removed_is_not_expected(self):
        assert buckets.config_matches({"metadata": {"_nats.ver": "2.15.1"}}, {"metadata": None}) == []

    def test_everything_kept(self):
        echo = json.loads(json.dumps(self.WANTED)) | {"duplicate_window": 120, "sealed": False}
        echo["metadata"]["_nats.level"] = "1"
        echo["subjects"].reverse()
        assert buckets.config_matches(echo, self.WANTED) == []

    def test_what_2_9_10_drops(self):
        echo = {k: v for k, v in self.WANTED.items() if k not in ("metadata", "compression")}
        assert buckets.config_matches(echo, self.WANTED) == ["compression", "metadata"]
        assert {"compression", "metadata"} <= set(buckets.FIELD_MINIMUM_VERSION)

    def test_empty_values_may_be_left_out(self):
        wanted = buckets.stream_config(ObjectStoreConfig("b", allow_direct=False))
        echo = {k: v for k, v in wanted.items() if k not in ("allow_direct", "max_age")}
        assert buckets.config_matches(echo, wanted) == []

    @pytest.mark.parametrize(
        "change",
        [{"compression": "none"}, {"metadata": {"k": "x"}}, {"placement": {"cluster": "c"}},
         {"subjects": None},
         {"max_bytes": 5}, {"allow_direct": False}],
        ids=repr,
    )  # fmt: skip
    def test_changes_are_told(self, change):
        assert buckets.config_matches(self.WANTED | change, self.WANTED) == list(change)
