"""The reading half of the file system: facts about files, and their bytes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import (
    Awaitable,
    Callable,
    Sequence,
)
from datetime import datetime
from typing import IO, TYPE_CHECKING, NoReturn, cast

from fsspec.asyn import sync
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.utils import isfilelike

from ..errors import IntegrityError, ObjectNotFoundError
from ..read.links import OtherBuckets
from . import reading
from .filesystem_lists import FileSystemLists
from .oserrors import os_errors
from .paths import strip

if TYPE_CHECKING:
    from ..bucket.operation import Progress
    from ..read.files import Replacing
    from .reading import Pinned, Range


class FileSystemReads(FileSystemLists):
    """The methods of :class:`NatsObjectFileSystem` that change nothing at the server."""

    # -- facts about an object --------------------------------------------------------------------

    async def _fact(self, path: str, key: str) -> object:
        entry = await self._info(path)
        if key not in entry:
            raise IsADirectoryError(errno.EISDIR, f"a directory has no {key}", path)
        return entry[key]

    def ukey(self, path: str) -> str:
        """Return the digest, ``SHA-256=<hex>``: it is another one when, and only when, the bytes are."""
        return str(sync(self.loop, self._fact, path, "digest"))

    checksum = ukey

    def modified(self, path: str) -> datetime:
        """Return when the server stored the object's description."""
        return cast(datetime, sync(self.loop, self._fact, path, "mtime"))

    def created(self, path: str) -> datetime:
        """Return when the bucket was created; for an object the same as :meth:`modified`.

        An object is always written as a whole: the time of an earlier one of that name is not kept.
        """
        return cast(datetime, sync(self.loop, self._fact, path, "created"))

    def sign(self, path: str, expiration: int = 100, **kwargs: object) -> NoReturn:
        """Raise ``NotImplementedError``: NATS has no signed addresses."""
        raise NotImplementedError(
            "NATS has no signed URLs. Give the reader credentials of its own that may only read this bucket "
            "(docs/permissions.md), or serve the object over HTTP"
        )

    # -- reading ----------------------------------------------------------------------------------

    async def pin(self, path: str) -> Pinned:
        """Return the object of a path as it is now. For the file objects."""
        with os_errors(path):
            store, name = await self._at(path)
            return await reading.pin(store, name, path, self._follow)

    async def read_pinned(self, pinned: Pinned, start: int, end: int) -> bytes:
        """Return bytes of an object as it was when it was pinned. For the file objects."""
        with os_errors(str(pinned.entry["name"])):
            return await reading.part(pinned, start, end)

    async def refuse(self, pinned: Pinned, exc: IntegrityError) -> NoReturn:
        """Raise what is wrong with the bytes of an object. For the file objects."""
        with os_errors(str(pinned.entry["name"])):
            await reading.refuse(pinned, exc)

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: object
    ) -> bytes:
        with os_errors(path):
            store, name = await self._at(path)
            if start is None and end is None:
                return await store.get(name, max_size=sys.maxsize, follow_links=self._follow)
            return (await reading.parts(store, name, path, [(start, end)], self._follow))[0]

    async def _cat(
        self,
        path: str | Sequence[str],
        recursive: bool = False,
        on_error: str = "raise",
        batch_size: int | None = None,
        **kwargs: object,
    ) -> bytes | Exception | dict[str, bytes | Exception]:
        asked, others = [path] if isinstance(path, str) else path, OtherBuckets()
        looking = recursive or any(map(self._may_be_pattern, asked))
        if looking and isinstance(path, str) and not recursive:
            looking = await self._is_pattern(path, others, removing=False)
        if looking:
            entries = await self._expanded(path, recursive=recursive, maxdepth=None)
            files = {each: entry["type"] for each, entry in entries.items() if entry["type"] != "directory"}
        else:
            files = dict.fromkeys(sorted(map(strip, asked)), "file")
        cat_file: Callable[..., Awaitable[bytes]] = self._cat_file

        async def read(each: str) -> bytes:
            if files[each] == "other":
                await self._check_link(each, others)
            return await cat_file(each, **kwargs)

        answers = await self._several(files, batch_size).read(list(files), read, on_error)
        if isinstance(path, str) and not looking:
            return answers[strip(path)]
        if on_error == "omit":
            answers = {each: data for each, data in answers.items() if isinstance(data, bytes)}
        return answers

    async def _check_link(self, path: str, others: OtherBuckets) -> None:
        """Raise why a link was listed as one that leads to no object, unless it leads to one now.

        Many may lead to one bucket that gives no answer: each read would wait for it.
        """
        with os_errors(path):
            store, name = await self._at(path)
            await reading.find(store, name, self._follow, others)

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: int | Sequence[int | None] | None,
        ends: int | Sequence[int | None] | None,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "return",
        **kwargs: object,
    ) -> list[bytes | Exception]:
        if not isinstance(paths, list):
            raise TypeError("paths must be a list")
        firsts = list(starts) if isinstance(starts, Sequence) else [starts] * len(paths)
        lasts = list(ends) if isinstance(ends, Sequence) else [ends] * len(paths)
        if not len(paths) == len(firsts) == len(lasts):
            raise ValueError("paths, starts and ends must have the same length")
        places: dict[str, list[int]] = {}
        for at, path in enumerate(paths):
            places.setdefault(path, []).append(at)

        async def read(path: str) -> list[bytes]:
            ranges: list[Range] = [(firsts[at], lasts[at]) for at in places[path]]
            with os_errors(path):
                store, name = await self._at(path)
                return await reading.parts(store, name, path, ranges, self._follow, max_gap)

        found = await self._several(places, batch_size).read(list(places), read, on_error)
        out: list[bytes | Exception] = [b""] * len(paths)
        for path, ats in places.items():
            answer = found[path]
            for number, at in enumerate(ats):
                out[at] = answer if isinstance(answer, Exception) else answer[number]
        return out

    async def _get_file(
        self,
        rpath: str,
        lpath: object,
        callback: Callback = DEFAULT_CALLBACK,
        replacing: Replacing | None = None,
        **kwargs: object,
    ) -> None:
        with os_errors(rpath):
            store, name = await self._at(rpath)
            if isfilelike(lpath):
                async with store.open_reader(name, follow_links=self._follow) as reader:
                    callback.set_size(reader.info.size)
                    async for piece in reader:
                        cast("IO[bytes]", lpath).write(piece)
                        callback.relative_update(len(piece))
                return
            try:
                progress = progress_of(callback)
                await reading.get_file(store, name, cast(str, lpath), progress, self._follow, replacing)
            except ObjectNotFoundError:
                if not await self._isdir(rpath):
                    raise
                os.makedirs(cast(str, lpath), exist_ok=True)


def progress_of(callback: Callback) -> Progress:
    """Return what tells a callback of fsspec about the bytes of one object."""

    def progress(done: int, total: int | None) -> None:
        if callback.size != total:
            callback.set_size(total)
        callback.absolute_update(done)

    return progress
