"""What the file system finds: connections, listings, what paths and patterns name."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from glob import has_magic
from typing import TYPE_CHECKING, TypeVar, cast

from fsspec.asyn import AsyncFileSystem, sync
from fsspec.utils import stringify_path

from natsproto.errors import InvalidNameError, PermissionsViolationError

from ..bucket.at_once import run_all
from ..errors import BadBucketError, BucketNotFoundError, IntegrityError, LinkError, ObjectNotFoundError
from ..format.codec import MetaDecodeError
from ..read.links import OtherBuckets, check_follow_links
from . import reading
from .connections import Connections, missing
from .globs import compiled
from .options import Environment, connection
from .oserrors import os_errors
from .paths import LEVELS, PROTOCOL, is_within, join, may_be_pattern, parents, split, strip
from .several import Several, of_one
from .tree import Entry, Tree, directory_entry, file_entry, only_names

if TYPE_CHECKING:
    from ..format.models import ObjectInfo
    from ..listing.decode import OnInvalid
    from ..read.links import FollowLinks
    from ..store import ObjectStore

T = TypeVar("T")

log: logging.Logger = logging.getLogger("objstore.filesystem")

AT_ONCE = 16
"""Objects that a bulk operation transfers at the same time, unless ``batch_size`` says otherwise."""

LOOKS = 8
"""Names below a path that are looked at one by one, to see whether it is a directory, before all are read."""


class FileSystemLists(AsyncFileSystem):
    """The methods of :class:`NatsObjectFileSystem` that find objects and directories."""

    protocol = PROTOCOL
    root_marker = ""
    cachable = True
    _environment = Environment()
    _extra_tokenize_attributes = ("_environment",)

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        *,
        url: str | Sequence[str] | None = None,
        domain: str | None = None,
        prefix: str | None = None,
        tlsca: str | None = None,
        tlscert: str | None = None,
        tlskey: str | None = None,
        asynchronous: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        batch_size: int | None = None,
        follow_links: FollowLinks = "all",
        patterns: bool | None = None,
        **options: object,
    ) -> None:
        self._follow = check_follow_links(follow_links)
        self._patterns = patterns
        connecting = connection(servers or url, (tlsca, tlscert, tlskey), options, os.environ)
        super().__init__(asynchronous=asynchronous, loop=loop, batch_size=batch_size or AT_ONCE)
        self._connections = Connections(connecting, domain, prefix)
        self._warned: set[str] = set()

    @classmethod
    def _strip_protocol(cls, path: str | list[str]) -> str | list[str]:
        if isinstance(path, list):
            return [strip(stringify_path(each)) for each in path]
        return strip(stringify_path(path))

    @classmethod
    def _parent(cls, path: str) -> str:
        bucket, name = split(strip(stringify_path(path)))
        above = parents(name) if name else []
        return join(bucket, above[-1]) if above else bucket if name else ""

    async def _store(self, bucket: str, *, anew: bool = False) -> ObjectStore:
        """Return a bucket; ``anew``: as it is now, even if it was opened before."""
        if anew:
            self._connections.forget(bucket)
        try:
            return await self._connections.store(bucket)
        except BadBucketError as exc:
            raise missing(bucket, exc) from exc

    async def _read(self, bucket: str, read: Callable[[ObjectStore], Awaitable[T]]) -> T:
        """Read a bucket: the one that is there now, if it was deleted and created again."""
        store = await self._store(bucket)
        try:
            return await read(store)
        except BucketNotFoundError:
            return await read(await self._store(bucket, anew=True))

    async def _at(self, path: str) -> tuple[ObjectStore, str]:
        """Return the bucket and the name of a file.

        Raises:
            IsADirectoryError: the path is a bucket, or the root.
            BucketNotFoundError: there is no such bucket.
        """
        bucket, name = split(strip(stringify_path(path)))
        if not name:
            raise IsADirectoryError(errno.EISDIR, "this is a bucket, not an object", path)
        return await self._store(bucket), name

    def _several(self, paths: Iterable[str], batch_size: int | None, directory: str | None = None) -> Several:
        """Return what works on the objects of one call.

        Args:
            paths: all that it reads or writes.
            batch_size: of the call.
            directory: the local one that all files go to.
        """
        buckets = {split(strip(path))[0] for path in paths}
        return Several(self._store, buckets, batch_size or self.batch_size, directory)

    # -- connections ------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the connection of the running loop; a later use connects again.

        With ``asynchronous=True`` do so before the loop ends. Otherwise the connection is closed when the
        file system is collected, and at the end of the interpreter.
        """
        await self._connections.close()

    def close(self) -> None:
        """Close the connection; a later use connects again."""
        sync(self.loop, self.aclose)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget opened buckets, in a transaction, too. Listings are not cached."""
        bucket, _ = split(strip(path or ""))
        self._connections.forget(bucket or None)

    # -- listing ----------------------------------------------------------------------------------

    async def _info(self, path: str, others: OtherBuckets | None = None, **kwargs: object) -> Entry:
        path = strip(stringify_path(path))
        bucket, name = split(path)
        if not bucket:
            return directory_entry("")
        with os_errors(path):
            store = await self._store(bucket, anew=not name)
            if not name:
                return directory_entry(path, store.bound_bucket.created)
            try:
                info = await store.get_info(name)
            except InvalidNameError as exc:
                raise ObjectNotFoundError(f"no object {name!r}: {exc}", bucket=bucket, name=name) from exc
            except ObjectNotFoundError:
                if not await self._read(bucket, lambda store: self._has_below(store, name)):
                    raise
                return directory_entry(path)
            return file_entry(path, info, await self._target(store, info, others or OtherBuckets()))

    async def _target(self, store: ObjectStore, info: ObjectInfo, others: OtherBuckets) -> ObjectInfo | None:
        """Return the object that is read at that name; ``None`` for a link that cannot be read."""
        if not info.is_link:
            return info
        try:
            return (await reading.find(store, info.name, self._follow, others))[1]
        except (LinkError, ObjectNotFoundError, PermissionsViolationError, IntegrityError):
            return None

    async def _has_below(self, store: ObjectStore, name: str) -> bool:
        names = await store.names(name + "/")
        for each in names[:LOOKS]:
            try:
                if await store.exists(each):
                    return True
            except MetaDecodeError:
                pass  # lists leave it out, too
        return len(names) > LOOKS and bool(await store.names(name + "/", live=True))

    async def _isdir(self, path: str) -> bool:
        try:
            return (await self._info(path))["type"] == "directory"
        except FileNotFoundError:
            return False

    async def _isfile(self, path: str) -> bool:
        try:
            return (await self._info(path))["type"] == "file"
        except FileNotFoundError:
            return False

    async def _tree(self, bucket: str, name: str = "", on_invalid: OnInvalid | None = None) -> Tree:
        """Read all metas of a bucket; keep a directory, or a file, of that name."""
        tree = Tree(bucket)
        with os_errors(join(bucket, name)):
            found = await self._read(bucket, lambda store: store.list(prefix=name, on_invalid=on_invalid))
            infos = [info for info in found if info.name == name or is_within(info.name, name)]
            store = await self._store(bucket)
            links = [info for info in infos if info.is_link]
            others = OtherBuckets()
            ends = await run_all((self._target(store, info, others) for info in links), self.batch_size)
            targets = dict(zip([info.name for info in links], ends, strict=True))
            for info in infos:
                tree.add(info, targets.get(info.name) if info.is_link else info)
        for marker in tree.markers:
            path = join(bucket, marker.name)
            if marker.size and path not in self._warned:
                self._warned.add(path)
                log.warning("object %r has no path of its own: its name ends in a slash", path)
        return tree

    async def _buckets(self) -> list[str]:
        with os_errors(""):
            return await (await self._connections.js()).object_store_names()

    def _leaves_out(self, bucket: str, exc: OSError) -> bool:
        """Whether a list of all buckets goes on without this one, which the user may not read; warn of it."""
        forbidden = isinstance(exc.__cause__, PermissionsViolationError)
        if forbidden:
            log.warning("bucket %r is left out: %s", bucket, exc.__cause__)
        return forbidden

    async def _ls(self, path: str, detail: bool = True, **kwargs: object) -> list[Entry] | list[str]:
        path = strip(stringify_path(path))
        bucket, name = split(path)
        if not bucket:
            found = [directory_entry(each) for each in await self._buckets()]
        else:
            tree = await self._tree(bucket, name)
            found = [tree.files[name]] if name in tree.files else []
            if tree.is_directory(name):
                found += tree.children(name)
            elif not found:
                raise FileNotFoundError(errno.ENOENT, "no such file or directory", path)
        return found if detail else sorted({cast(str, entry["name"]) for entry in found})

    async def _walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: object = "omit",
        detail: bool = False,
        of_all: bool = False,
        **kwargs: object,
    ) -> AsyncIterator[tuple[str, object, object]]:
        path = cast(str, self._strip_protocol(path))
        if path:
            for step in await self._walked(
                path, maxdepth, topdown=topdown, on_error=on_error, detail=detail, of_all=of_all
            ):
                yield step
            return
        async for each in super()._walk(  # it walks the buckets with the last argument, but without on_error
            path,
            maxdepth=maxdepth,
            topdown=topdown,
            on_error=on_error,
            detail=detail,
            **kwargs,
            of_all=on_error != "raise",
        ):
            yield each

    async def _walked(
        self,
        path: str,
        maxdepth: int | None,
        *,
        topdown: bool,
        on_error: object,
        detail: bool,
        of_all: bool = False,
    ) -> Iterator[tuple[str, object, object]]:
        """Return what a walk below a bucket yields: the bucket has been listed."""
        bucket, name = split(path)
        check_depth(maxdepth)
        try:
            tree = await self._tree(bucket, name)
            if not tree.is_directory(name) and name not in tree.files:
                raise FileNotFoundError(errno.ENOENT, "no such file or directory", path)
        except OSError as exc:
            left_out = isinstance(exc, FileNotFoundError) or (of_all and self._leaves_out(bucket, exc))
            if on_error == "raise" or (on_error == "omit" and not left_out):
                raise
            if callable(on_error):
                on_error(exc)
            return iter([(path, {}, {}) if detail else (path, [], [])])
        walk = tree.walk(name, maxdepth, topdown=topdown)
        return walk if detail else only_names(walk)

    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: object = "omit",
        detail: bool = False,
    ) -> Iterator[tuple[str, object, object]]:
        """Yield each directory below a path, its directories, and its files; as :func:`os.walk`.

        The whole bucket is listed once. Other errors than a missing path are not left out, except that a walk
        through all buckets leaves out those that the user may not read.
        """
        path = cast(str, self._strip_protocol(path))
        if path:  # no step needs the loop, which would take several times as long
            yield from sync(
                self.loop, self._walked, path, maxdepth, topdown=topdown, on_error=on_error, detail=detail
            )
            return
        steps = self._walk(path, maxdepth, topdown, on_error, detail=detail)
        while (step := sync(self.loop, anext, steps, None)) is not None:
            yield step

    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        prefix: str = "",
        **kwargs: object,
    ) -> list[str] | Mapping[str, Entry]:
        check_depth(maxdepth)
        path = strip(stringify_path(path))
        found = await self._found(path, maxdepth, prefix, withdirs=withdirs, levels=LEVELS, leave_out=True)
        return found if detail else list(found)

    async def _found(
        self,
        path: str,
        maxdepth: int | None,
        prefix: str = "",
        *,
        withdirs: bool,
        levels: int,
        leave_out: bool = False,
    ) -> Mapping[str, Entry]:
        """Return what :meth:`Tree.find` does; of the root, the buckets and what is in them.

        Args:
            leave_out: of the root, what is in buckets that the user may not read. Who copies wants all.
        """
        bucket, name = split(path)
        if bucket:
            try:
                tree = await self._tree(bucket, name)
            except FileNotFoundError:
                return {}
            return tree.find(name, maxdepth, prefix, withdirs=withdirs, levels=levels)
        found: dict[str, Entry] = {}
        for each in await self._buckets():
            if each.startswith(prefix):
                if withdirs:
                    found[each] = directory_entry(each)
                if maxdepth is None or maxdepth > 1:
                    below = maxdepth and maxdepth - 1
                    try:
                        found.update(await self._found(each, below, withdirs=withdirs, levels=levels))
                    except PermissionError as exc:
                        if not leave_out or not self._leaves_out(each, exc):
                            raise
        return found

    async def _glob(
        self,
        path: str,
        maxdepth: int | None = None,
        *,
        detail: bool = False,
        withdirs: bool = True,
        **kwargs: object,
    ) -> list[str] | dict[str, Entry]:
        check_depth(maxdepth)
        directories = path.endswith("/")
        path = strip(path)
        found: Mapping[str, Entry]
        if not has_magic(path):
            found = {path: await self._info(path)} if await self._exists(path) else {}
        else:
            matches = compiled(f"{path}/" if directories else path).match
            directories |= path.endswith("/**")
            begin = path[: min(path.index(char) for char in "*?[" if char in path)]
            root = begin[: begin.rfind("/") + 1]
            levels = path.count("/", len(root)) + 1
            at = path.find("**")
            if at < 0:
                depth: int | None = levels
            else:
                depth = None if maxdepth is None else levels - path.count("/", at) - 1 + maxdepth
            found = cast(
                Mapping[str, Entry],
                await self._find(root, depth, withdirs=withdirs, detail=True, prefix=begin[len(root) :]),
            )
            found = {
                each: entry
                for each, entry in sorted(found.items())
                if matches(f"{each}/" if directories and entry["type"] == "directory" else each)
            }
        return dict(found) if detail else list(found)

    def _may_be_pattern(self, path: object, *, removing: bool = False) -> bool:
        """Whether a path that was given may be a pattern.

        Args:
            removing: the call removes what it finds. pyarrow, zarr and others pass on what they have listed
                as plain text, and others may have chosen a name that matches more.
        """
        wanted = not removing if self._patterns is None else self._patterns
        return wanted and may_be_pattern(path)

    async def _is_pattern(
        self, path: str, others: OtherBuckets, *, removing: bool, listed: dict[str, list[str]] | None = None
    ) -> bool:
        """Whether a path that was given is a pattern.

        Args:
            path: the path.
            others: of the call.
            removing: as for :meth:`_may_be_pattern`.
            listed: what buckets contain, where the call has listed them: once for all its paths.

        Raises:
            ValueError: it is the name of an object, and matches others as well: whoever chose that name must
                not decide what the call means.
        """
        if not self._may_be_pattern(path, removing=removing):
            return False
        if not await self._exists(path, others=others):
            return True
        path, bucket = strip(path), split(strip(path))[0]
        found = {} if listed is None else listed
        if bucket not in found:
            found[bucket] = cast("list[str]", await self._find(bucket, withdirs=True))
        matches = compiled(path).match
        if any(match != path and matches(match) for match in found[bucket]):
            raise ValueError(
                f"{path!r} is the name of an object, and a pattern that matches others: pass what glob() "
                "returns, or create the file system with patterns=False, where no path is a pattern"
            )
        return False

    @contextmanager
    def _literally(self, path: str | Sequence[str]) -> Iterator[None]:
        """Say, where nothing is called so, that a path was not taken for a pattern."""
        try:
            yield
        except FileNotFoundError as exc:
            if self._patterns is None and any(map(may_be_pattern, [path] if isinstance(path, str) else path)):
                exc.add_note("rm and mv take no patterns: pass what glob() returns (see docs/fsspec.md)")
            raise

    async def _expanded(
        self,
        path: str | Sequence[str],
        *,
        recursive: bool,
        maxdepth: int | None,
        levels: int = 0,
        removing: bool = False,
        apart: bool = False,
    ) -> dict[str, Entry]:
        """Return what paths and patterns name, by path, sorted; one listing for each.

        Args:
            path: one, or several.
            recursive: with what lies below.
            maxdepth: levels to go down.
            levels: of directories below a path that are wanted; 0 = the files, and the path itself.
            removing: what they name will be removed.
            apart: what lies in a directory does not go with an object of the same path: lists show the
                object.

        Raises:
            FileNotFoundError: nothing.
            ValueError: a path is both a name and a pattern; or, with ``apart``, an object and a directory.
        """
        found: dict[str, Entry] = {}
        others = OtherBuckets()
        listed: dict[str, list[str]] = {}
        plain: list[str] = []
        for given in [path] if isinstance(path, str) else path:
            each = strip(given)
            if await self._is_pattern(given, others, removing=removing, listed=listed):
                matches = cast(Mapping[str, Entry], await self._glob(each, maxdepth=maxdepth, detail=True))
                found.update(matches)
                below = maxdepth and maxdepth - 1
                if recursive and below != 0:
                    for match, entry in matches.items():
                        if entry["type"] == "directory":
                            found.update(await self._found(match, below, withdirs=True, levels=levels))
            elif recursive:
                whole = dict(await self._found(each, maxdepth, withdirs=True, levels=levels))
                if len(whole) > 1 and whole.get(each, {}).get("type") in ("file", "other"):
                    if given.endswith("/"):
                        del whole[each]  # an object that is called like the directory
                    elif apart:
                        raise ValueError(
                            f"{given!r} is both an object and a directory: pass recursive=False for the one, "
                            f"{given + '/'!r} for the other"
                        )
                found.update(whole)
            else:
                plain.append(each)

        async def look(each: str) -> Entry:
            try:
                return await self._info(each, others)
            except OSError as exc:
                if isinstance(path, str) or not of_one(exc, {split(each)[0]}):
                    raise
                return {"name": each, "type": "other"}  # whatever is done with it fails

        found.update(zip(plain, await run_all(map(look, plain), self.batch_size), strict=True))
        if not found:
            raise FileNotFoundError(errno.ENOENT, "no such file or directory", str(path))
        return {each: found[each] for each in sorted(found)}

    async def _du(
        self, path: str, total: bool = True, maxdepth: int | None = None, **kwargs: object
    ) -> int | dict[str, int]:
        found = cast(Mapping[str, Entry], await self._find(path, maxdepth, detail=True))
        sizes = {name: cast(int, entry["size"]) for name, entry in found.items()}
        return sum(sizes.values()) if total else sizes


def check_depth(maxdepth: int | None) -> None:
    """Refuse a depth below 1, as fsspec does."""
    if maxdepth is not None and maxdepth < 1:
        raise ValueError("maxdepth must be at least 1")
