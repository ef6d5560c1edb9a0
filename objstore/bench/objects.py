"""The measured operations on objects. The clock of an operation runs only while the library works.

Payloads exist before, and bytes are compared afterwards. An object's number says its name, size and bytes:
whoever reads it needs nothing else to check it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ..errors import IntegrityError
from .load import Call, clock, together
from .payloads import WHOLE, Payloads
from .record import Sample
from .settings import Settings

if TYPE_CHECKING:
    from ..store import ObjectStore

SPAN = 1 << 40
"""Numbers of objects that each process may use."""

CHECKED, CHECKED_BYTES = 64, 256 * 1024 * 1024
"""Objects, and bytes of them, that are read back after a run that stores, at most."""

PREPARE_AT_ONCE = 16


def object_name(number: int) -> str:
    """Return the name of an object."""
    return f"object-{number:x}"


class Objects:
    """What all these operations have: a bucket, sizes, payloads."""

    batch = 1

    def __init__(self, store: ObjectStore, settings: Settings, payloads: Payloads, process: int) -> None:
        self.store = store
        self.settings = settings
        self.payloads = payloads
        self._own = (process + 1) * SPAN
        self._random = random.Random(f"{settings.seed}-{process}")

    def next(self, number: int) -> tuple[str, Call]:
        """Return the kind of an operation, and the call that makes it."""
        raise NotImplementedError

    async def check(self) -> int:
        """Read back what was stored; returns how many objects were compared."""
        return 0

    async def put(self, number: int) -> Sample:
        """Store an object."""
        size = self.settings.sizes.of(number)
        name = object_name(number)
        payload = self.payloads.whole(number, size) if size <= WHOLE else self.payloads.pieces(number, size)
        began = clock()
        await self.store.put(name, payload, chunk_size=self.settings.chunk_size)
        return Sample(began, clock(), size)

    async def get(self, number: int) -> Sample:
        """Read an object whole, and compare it."""
        size = self.settings.sizes.of(number)
        name = object_name(number)
        first = 0.0

        def arrived(done: int, total: int | None) -> None:
            nonlocal first
            if not first:
                first = clock()

        began = clock()
        found = await self.store.get(name, max_size=max(size, 1), progress=arrived)
        ended = clock()
        if not self.payloads.same(number, size, found):
            raise IntegrityError(f"wrong bytes in {name!r}: {len(found)} of {size}, or others")
        return Sample(began, ended, size, first or ended)


class Put(Objects):
    """New names, or the same ones in turn."""

    def __init__(self, store: ObjectStore, settings: Settings, payloads: Payloads, process: int) -> None:
        super().__init__(store, settings, payloads, process)
        self._stored: list[int] = []
        self._seen = 0

    def next(self, number: int) -> tuple[str, Call]:
        """Store the next object."""
        if self.settings.objects is not None:
            number %= self.settings.objects
        return "put", lambda: self._keep(self._own + number)

    async def _keep(self, number: int) -> Sample:
        sample = await self.put(number)
        self._seen += 1  # each of those stored has the same chance to be read back
        if len(self._stored) < CHECKED:
            self._stored.append(number)
        elif (place := self._random.randrange(self._seen)) < CHECKED:
            self._stored[place] = number
        return sample

    async def check(self) -> int:
        """Read back some of the objects."""
        numbers, size = list(dict.fromkeys(self._stored)), 0
        for done, number in enumerate(numbers):
            size += self.settings.sizes.of(number)
            if done and size > CHECKED_BYTES:
                return done
            await self.get(number)
        return len(numbers)


class Get(Objects):
    """Whole objects, in random order."""

    def next(self, number: int) -> tuple[str, Call]:
        """Read an object."""
        chosen = self._random.randrange(self.settings.prepared)
        return "get", lambda: self.get(chosen)


class Range(Objects):
    """Ranges at random places of random objects."""

    def next(self, number: int) -> tuple[str, Call]:
        """Read a range."""
        chosen = self._random.randrange(self.settings.prepared)
        size = self.settings.sizes.of(chosen)
        length = min(self.settings.range_size, size)
        start = self._random.randrange(size - length + 1)
        return "range", lambda: self._range(chosen, size, start, length)

    async def _range(self, number: int, size: int, start: int, length: int) -> Sample:
        name = object_name(number)
        began = clock()
        found = await self.store.get_range(name, start, start + length)
        ended = clock()
        if found != self.payloads.part(number, size, start, length):
            raise IntegrityError(f"wrong bytes in {name!r} from {start} on")
        return Sample(began, ended, length)


class List(Objects):
    """The whole list of the bucket."""

    def next(self, number: int) -> tuple[str, Call]:
        """List the bucket."""
        return "list", self._list

    async def _list(self) -> Sample:
        began = clock()
        found = await self.store.list()
        ended = clock()
        if {info.name for info in found} != {object_name(n) for n in range(self.settings.prepared)}:
            raise IntegrityError(f"{len(found)} names of {self.settings.prepared}, or others")
        return Sample(began, ended, 0)


class Mixed(Objects):
    """Several kinds of operations on the same objects; each process has objects of its own."""

    def __init__(self, store: ObjectStore, settings: Settings, payloads: Payloads, process: int) -> None:
        super().__init__(store, settings, payloads, process)
        self._kinds = [kind for kind, _ in settings.mix]
        self._weights = [weight for _, weight in settings.mix]
        self._live = list(range(process, settings.prepared, settings.processes))
        self._busy: dict[int, int] = {}

    def next(self, number: int) -> tuple[str, Call]:
        """Choose a kind and an object. With nothing left to delete or to read, one is stored."""
        (kind,) = self._random.choices(self._kinds, self._weights)
        if kind == "put" or not self._live:
            return "put", lambda: self._put(self._own + number)
        place = self._random.randrange(len(self._live))
        chosen = self._live[place]
        if kind == "delete":
            if chosen in self._busy:  # somebody reads it
                return "put", lambda: self._put(self._own + number)
            self._live[place] = self._live[-1]
            self._live.pop()
            return "delete", lambda: self._delete(chosen)
        self._busy[chosen] = self._busy.get(chosen, 0) + 1
        return kind, lambda: self._read(kind, chosen)

    async def _put(self, number: int) -> Sample:
        sample = await self.put(number)
        self._live.append(number)
        return sample

    async def _delete(self, number: int) -> Sample:
        began = clock()
        await self.store.delete(object_name(number))
        return Sample(began, clock(), 0)

    async def _read(self, kind: str, number: int) -> Sample:
        try:
            return await (self.get(number) if kind == "get" else self._info(number))
        finally:
            self._busy[number] -= 1
            if not self._busy[number]:
                del self._busy[number]

    async def _info(self, number: int) -> Sample:
        began = clock()
        found = await self.store.get_info(object_name(number))
        ended = clock()
        if found.size != self.settings.sizes.of(number):
            raise IntegrityError(f"wrong size of {found.name!r}: {found.size}")
        return Sample(began, ended, 0)

    async def check(self) -> int:
        """Read back some of the objects."""
        numbers = self._random.sample(self._live, min(CHECKED, len(self._live)))
        size = 0
        for done, number in enumerate(numbers):
            size += self.settings.sizes.of(number)
            if done and size > CHECKED_BYTES:
                return done
            await self.get(number)
        return len(numbers)


WORKS = {"put": Put, "get": Get, "range": Range, "list": List, "mixed": Mixed}


async def prepare(store: ObjectStore, settings: Settings, payloads: Payloads) -> None:
    """Store the objects that the operations read, several at a time."""
    maker = Objects(store, settings, payloads, 0)
    numbers = iter(range(settings.prepared))

    async def task() -> None:
        for number in numbers:
            await maker.put(number)

    at_once = min(PREPARE_AT_ONCE, max(1, CHECKED_BYTES // max(settings.sizes.most, 1)))
    await together(task() for _ in range(at_once))
