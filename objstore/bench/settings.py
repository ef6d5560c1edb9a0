"""What a run measures: everything that its result depends on."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .sizes import Sizes

OBJECT_WORKS = ("put", "get", "range", "list", "mixed")
MESSAGE_WORKS = ("publish", "subscribe", "request")
MIXED_KINDS = ("get", "info", "put", "delete")

PREPARED = 256 * 1024 * 1024
"""Bytes of the objects that are stored to be read, at most, unless their number is given."""

MOST_OBJECTS = 1000
BATCH = 1000
"""Messages of a batch, at most, unless it is given."""

BATCH_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    Attributes:
        work: one of :data:`OBJECT_WORKS` or :data:`MESSAGE_WORKS`.
        sizes: of objects or messages.
        seconds: how long operations begin; ``None``: ``count`` of them.
        count: how many operations, in all; ``None``: for ``seconds``.
        warmup: seconds before the clock starts.
        rate: operations that are due each second, in all; ``None``: a closed loop.
        concurrency: operations at a time, in all.
        processes: client processes.
        objects: how many objects are read, or how many names are replaced in turn by put; ``None``: see
            :meth:`prepared`.
        range_size: bytes of a range.
        mix: kind of operation -> how often, for mixed.
        batch: messages of one operation; ``None``: see :meth:`messages`.
        storage: of the bucket.
        replicas: of the bucket.
        chunk_size: bytes of a chunk; ``None``: the library's default.
        seed: of payloads and choices.
    """

    work: str
    sizes: Sizes
    seconds: float | None = 10.0
    count: int | None = None
    warmup: float = 1.0
    rate: float | None = None
    concurrency: int = 1
    processes: int = 1
    objects: int | None = None
    range_size: int = 1024 * 1024
    mix: tuple[tuple[str, int], ...] = (("get", 45), ("info", 30), ("put", 15), ("delete", 10))
    batch: int | None = None
    storage: str = "file"
    replicas: int = 1
    chunk_size: int | None = None
    seed: int = 1

    @property
    def on_objects(self) -> bool:
        """Whether it needs a bucket."""
        return self.work in OBJECT_WORKS

    @property
    def prepared(self) -> int:
        """How many objects are stored before the run."""
        if self.work == "put" or not self.on_objects:
            return 0
        if self.objects is not None:
            return self.objects
        return max(1, min(MOST_OBJECTS, int(PREPARED // max(self.sizes.mean, 1))))

    @property
    def messages(self) -> int:
        """How many messages one operation publishes: alone, each would cost a round trip to know its end."""
        if self.work not in ("publish", "subscribe"):
            return 1
        if self.batch is not None:
            return self.batch
        return 1 if self.rate is not None else max(1, min(BATCH, int(BATCH_BYTES // max(self.sizes.mean, 1))))

    def document(self) -> dict[str, object]:
        """Return them as JSON, those left out that do not apply."""
        found: dict[str, object] = {field.name: getattr(self, field.name) for field in fields(self)}
        found["sizes"] = self.sizes.text
        found["mix"] = dict(self.mix)
        found["objects"] = self.objects if self.work == "put" else self.prepared
        found["batch"] = self.messages
        unused = {
            "mix": self.work == "mixed",
            "range_size": self.work == "range",
            "batch": not self.on_objects,
            **dict.fromkeys(("objects", "storage", "replicas", "chunk_size"), self.on_objects),
        }
        return {key: value for key, value in found.items() if unused.get(key, True)}
