"""The file system: fsspec's operations on buckets and their objects."""

from __future__ import annotations

import asyncio
import errno
import io
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar, Unpack, cast

from fsspec.asyn import AsyncFileSystem, sync
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.compression import compr
from fsspec.core import get_compression
from fsspec.implementations.local import LocalFileSystem, make_path_posix, trailing_sep

from ..bucket.at_once import run_all
from ..change.move import copy_to_move
from ..errors import BucketNotFoundError, ObjectAlreadyExists, ObjectChangedError, ObjectNotFoundError
from ..format.models import ObjectMeta
from ..read.files import Written
from ..read.links import OtherBuckets
from .files import AsyncObjectFile, ObjectFile, PackedFile, TextFile, UnorderedFile
from .filesystem_reads import FileSystemReads, progress_of
from .moving import (
    Move,
    check_files,
    check_targets,
    directory_of,
    local_plan,
    paths_of,
    plan,
    source_of,
)
from .oserrors import os_errors
from .paths import LEVELS, check_apart, check_local, is_within, join, split, strip
from .transaction import WriteTransaction
from .writing import Mode, Writing

if TYPE_CHECKING:
    from ..format.models import BucketFields, InvalidMeta
    from .writing import WriteOptions

T = TypeVar("T")


def _blocking(verb: str) -> Callable[..., object]:
    """Return what fsspec makes of a coroutine method; here an interrupt also ends what the loop does."""

    def call(self: FileSystemReads, *args: object, timeout: float | None = None, **kwargs: object) -> object:
        begun: list[asyncio.Task[object]] = []
        over = False

        async def work() -> object:
            begun.append(cast("asyncio.Task[object]", asyncio.current_task()))
            # Asked after that: an interrupt, which may come between any two steps, misses neither.
            return None if over else await getattr(self, f"_{verb}")(*args, **kwargs)

        try:
            return sync(self.loop, work, timeout=timeout)
        except BaseException:
            over = True
            for task in begun:
                self.loop.call_soon_threadsafe(task.cancel)
            raise

    return wraps(getattr(AsyncFileSystem, verb))(call)


class NatsObjectFileSystem(FileSystemReads):
    """Buckets and objects as ``bucket/path/to/file``, for fsspec and everything that uses it.

    A bucket is a directory of the root. Directories below exist as long as a name lies in them. Listings are
    never cached. Errors are ``OSError``, with the library's own error as their cause.

    Args:
        servers: as :func:`natsproto.connect`; default: the environment's ``NATS_URL``.
        url: the same, under another name (some libraries have an argument of that name themselves).
        domain, prefix: as ``Client.jetstream``.
        tlsca, tlscert, tlskey: files for TLS.
        asynchronous: for use with ``await``, in the loop that runs then; see :meth:`aclose`.
        loop: fsspec's loop, by default.
        batch_size: objects that are transferred at the same time (16).
        follow_links: ``"same-bucket"`` refuses to read through links into other buckets, ``"none"`` through
            any; default: ``"all"``.
        patterns: whether paths with ``*``, ``?`` or ``[`` may be patterns in ``get``, ``cat``, ``cp``, ``rm``
            and ``mv``. Default: in the first three. ``glob`` takes them always. ``False``: nor does ``cp``,
            ``mv`` or ``put`` to a path mean a directory of that name, unless it ends in a slash.
        **options: all other options of :func:`natsproto.connect`, and of ``fsspec.AbstractFileSystem``.

    Raises:
        ConfigError, TypeError: options that cannot work, or do not exist. Nothing is sent before the first
            use.
    """

    transaction_type = WriteTransaction

    # -- open files -------------------------------------------------------------------------------

    def start_transaction(self) -> WriteTransaction:
        """Begin what ``with fs.transaction`` does, until :meth:`end_transaction`."""
        transaction: WriteTransaction = self.transaction
        transaction.start()
        return transaction

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_type: str = "readahead",
        cache_options: dict[str, object] | None = None,
        size: int | None = None,
        **options: object,
    ) -> ObjectFile:
        kind = UnorderedFile if cache_type == "adaptive" else ObjectFile
        return kind(
            self,
            path,
            mode,
            block_size,
            autocommit=autocommit,
            cache_type=cache_type,
            cache_options=cache_options,
            size=size,
            **options,
        )

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: dict[str, object] | None = None,
        compression: str | None = None,
        **kwargs: object,
    ) -> io.IOBase:
        """Open a file; see :class:`~objstore.filesystem.files.ObjectFile`.

        Args:
            path: where.
            mode: ``r``, ``w``, ``x`` (must not exist) or ``a`` (the object is copied and continued), with
                ``b`` or ``t`` (text, the default).
            block_size: bytes that are read ahead, or collected before they are sent (4 MiB).
            cache_options: for fsspec's cache.
            compression: as ``fsspec.open``.
            **kwargs: ``cache_type``, ``autocommit``; ``encoding``, ``errors`` and ``newline`` of text; when
                writing, ``description``, ``headers``, ``metadata``, ``chunk_size``, ``ttl`` and ``atomic`` of
                :meth:`objstore.ObjectStore.put`.
        """
        binary = "b" in mode
        encoding, errors, newline = (
            None if binary else cast("str | None", kwargs.pop(key, None)) for key in _TEXT
        )
        mode = mode if binary else mode.replace("t", "") + "b"
        packing = None if "r" in mode else get_compression(str(path), compression)
        stored: io.IOBase = super().open(
            path, mode, block_size, cache_options, compression if packing is None else None, **kwargs
        )
        if not isinstance(stored, ObjectFile):  # it is decompressed
            return stored if binary else TextFile(cast("IO[bytes]", stored), encoding, errors, newline)
        file: ObjectFile | PackedFile | TextFile = stored
        try:
            if packing is not None:
                file = PackedFile(stored, compr[packing](stored, mode="w"))
            if not binary:
                file = TextFile(cast("IO[bytes]", file), encoding, errors, newline)
        except BaseException:
            stored.discard()  # else a transaction would store it, empty
            raise
        if file is not stored:
            stored.comes_from(file)
        return cast(io.IOBase, file)

    async def begin_writing(self, path: str, mode: Mode, options: WriteOptions) -> tuple[Writing, int]:
        """Return what stores a file that is being written, and its position. For the file objects."""
        with os_errors(path):
            store, name = await self._at(path)
            writing = Writing(store, name, mode, options)
            return writing, await writing.begin()

    async def open_async(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        **options: Unpack[WriteOptions],
    ) -> AsyncObjectFile:
        """Open a file for ``async with``; in mode ``rb``, ``wb``, ``xb`` or ``ab``."""
        path = strip(path)
        if mode == "rb":
            return AsyncObjectFile(self, path, mode, pinned=await self.pin(path), block_size=block_size)
        if mode not in ("wb", "xb", "ab"):
            raise ValueError(f"mode is 'rb', 'wb', 'xb' or 'ab', not {mode!r}")
        writing, position = await self.begin_writing(path, cast(Mode, mode), options)
        return AsyncObjectFile(self, path, mode, writing=writing, position=position, block_size=block_size)

    # -- whole files ------------------------------------------------------------------------------

    async def _pipe_file(
        self, path: str, value: bytes, mode: str = "overwrite", **options: Unpack[WriteOptions]
    ) -> None:
        with os_errors(path):
            store, name = await self._at(path)
            put = store.create if mode == "create" else store.put
            await put(name, value, **options)

    async def _put_file(
        self,
        lpath: str,
        rpath: str,
        callback: Callback = DEFAULT_CALLBACK,
        mode: str = "overwrite",
        **options: Unpack[WriteOptions],
    ) -> None:
        if await asyncio.to_thread(os.path.isdir, lpath):
            await self._makedirs(rpath, exist_ok=True)
            return
        with os_errors(rpath):
            store, name = await self._at(rpath)
            await store.put_file(
                name,
                lpath,
                if_revision=0 if mode == "create" else None,
                progress=progress_of(callback),
                **options,
            )

    async def _touch(self, path: str, truncate: bool = True, **options: Unpack[WriteOptions]) -> None:
        if truncate:
            return await self._pipe_file(path, b"", **options)
        with os_errors(path):
            store, name = await self._at(path)
            try:
                await store.update_meta(name, ObjectMeta(name))
            except ObjectNotFoundError:
                await store.create(name, b"", **options)

    def touch(self, path: str, truncate: bool = True, **options: Unpack[WriteOptions]) -> None:
        """Store an empty object; with ``truncate=False`` an existing one only gets a new time."""
        sync(self.loop, self._touch, path, truncate, **options)

    async def _cp_file(self, path1: str, path2: str, **kwargs: object) -> None:
        with os_errors(path1):
            source, name = await self._at(path1)
            target, new_name = await self._at(path2)
            await source.copy(name, new_name, to=target, follow_links=self._follow)

    async def _mv_file(self, path1: str, path2: str, others: OtherBuckets | None = None) -> None:
        with os_errors(path1):
            source, name = await self._at(path1)
            target, new_name = await self._at(path2)
            if (source.bucket, name) == (target.bucket, new_name):
                return
            if source.bucket == target.bucket:
                try:
                    await source.rename(name, new_name)
                    return
                except ObjectAlreadyExists:
                    pass  # replace it, as mv does
            info = await source.get_info(name)
            copied = await copy_to_move(source, info, target, new_name, follow=self._follow, others=others)
            if (await target.get_info(new_name)).nuid != copied.nuid:
                raise ObjectChangedError(
                    f"the copy of {name!r} was replaced meanwhile: the original stays",
                    bucket=target.bucket,
                    name=new_name,
                )
            await source.delete(name, if_revision=info.revision)  # else what was stored since would be lost

    async def _rm_file(self, path: str, **kwargs: object) -> None:
        with os_errors(path):
            store, name = await self._at(path)
            await store.delete(name)

    # -- many files -------------------------------------------------------------------------------

    copy, get, mv, rm = map(_blocking, ("copy", "get", "mv", "rm"))

    async def _plan(
        self,
        path1: str | Sequence[str],
        path2: str,
        *,
        recursive: bool,
        maxdepth: int | None,
        into: bool,
        levels: int = 0,
        removing: bool = False,
    ) -> list[Move]:
        found = await self._expanded(
            path1, recursive=recursive, maxdepth=maxdepth, levels=levels, removing=removing, apart=True
        )
        one = isinstance(path1, str) and strip(path1) in found  # it is a name
        return plan(
            path1,
            found,
            path2,
            into=into,
            only_files=isinstance(path1, str) and (not recursive or maxdepth is not None),
            pattern=self._may_be_pattern(path1, removing=removing) and not one,
        )

    async def _goes_into(self, target: str) -> bool:
        """Whether what is put there goes into it: a directory, or what was written as one.

        Raises:
            IsADirectoryError: paths are taken as they are, and objects of others make this one a directory.
        """
        into = target.endswith("/")
        if not into and await self._isdir(target):
            if self._patterns is False and split(strip(target))[1]:
                what = "objects lie below it: end it with a slash to put something into it"
                raise IsADirectoryError(errno.EISDIR, what, target)
            into = True
        return into

    async def _remote_plan(
        self,
        path1: str | Sequence[str],
        path2: str | Sequence[str],
        *,
        recursive: bool,
        maxdepth: int | None,
        removing: bool = False,
    ) -> list[Move]:
        """Plan what goes from one path to another one here; directories come with their files.

        Raises:
            ValueError: two would have the same target; or the source is both an object and a directory.
        """
        if isinstance(path1, str) or isinstance(path2, str):
            assert isinstance(path2, str)
            into = await self._goes_into(path2)
            moves = await self._plan(
                path1, strip(path2), recursive=recursive, maxdepth=maxdepth, into=into, removing=removing
            )
        else:
            pairs = zip(map(strip, path1), map(strip, path2), strict=True)
            moves = [Move(source, target, False) for source, target in pairs]
        files = [move for move in moves if not move.directory]
        check_files(files)
        for bucket in {split(move.target)[0] for move in moves}:
            with os_errors(bucket):
                await self._store(
                    bucket, anew=True
                )  # else a copy of a tree would look as if its source had gone
        return files

    async def _copy(
        self,
        path1: str | Sequence[str],
        path2: str | Sequence[str],
        recursive: bool = False,
        on_error: str | None = None,
        maxdepth: int | None = None,
        batch_size: int | None = None,
        **kwargs: object,
    ) -> None:
        moves = await self._remote_plan(path1, path2, recursive=recursive, maxdepth=maxdepth)
        skipping = (on_error or ("ignore" if recursive else "raise")) == "ignore"
        others = OtherBuckets()

        async def copy(move: Move) -> None:
            if move.unreadable:
                await self._check_link(move.source, others)
            await self._cp_file(move.source, move.target)

        skipped = (FileNotFoundError,) if skipping else ()
        await self._several(paths_of(moves), batch_size).run(moves, copy, source_of, skipped)

    async def _mv(
        self,
        path1: str | Sequence[str],
        path2: str | Sequence[str],
        recursive: bool = False,
        maxdepth: int | None = None,
        batch_size: int | None = None,
        **kwargs: object,
    ) -> None:
        """Move files, as ``copy`` copies them; within a bucket they are renamed. Targets are replaced.

        Each file by itself: its source goes when its copy is there, whatever becomes of the others.
        """
        with self._literally(path1):
            moves = await self._remote_plan(
                path1, path2, recursive=recursive, maxdepth=maxdepth, removing=True
            )

            others = OtherBuckets()

            async def move_one(move: Move) -> None:
                await self._mv_file(move.source, move.target, others)

            await self._several(paths_of(moves), batch_size).run(moves, move_one, source_of)

    async def _pipe(
        self,
        path: str | Mapping[str, bytes],
        value: bytes | None = None,
        batch_size: int | None = None,
        **kwargs: object,
    ) -> None:
        values = {path: value} if isinstance(path, str) else path
        check_targets((each, strip(each)) for each in values)

        pipe_file: Callable[..., Awaitable[None]] = self._pipe_file

        async def pipe(each: str) -> None:
            await pipe_file(each, values[each], **kwargs)

        await self._several(values, batch_size).run(list(values), pipe)

    async def _put(
        self,
        lpath: str | Path | Sequence[str],
        rpath: str | Sequence[str],
        recursive: bool = False,
        callback: Callback = DEFAULT_CALLBACK,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        **kwargs: object,
    ) -> None:
        if isinstance(rpath, str):
            into = isinstance(lpath, str) and await self._goes_into(rpath)
            moves = await asyncio.to_thread(
                local_plan,
                lpath,
                strip(rpath),
                recursive=recursive,
                maxdepth=maxdepth,
                into=into,
                patterns=self._patterns is not False,
            )
        else:
            local = LocalFileSystem()
            sources = [lpath] if isinstance(lpath, str | os.PathLike) else lpath
            pairs = zip(map(str, sources), map(strip, rpath), strict=False)
            moves = [Move(source, target, local.isdir(source)) for source, target in pairs]
        files = [move for move in moves if not move.directory]
        check_targets((move.source, move.target) for move in files)
        directories = [move.target for move in moves if move.directory]
        await run_all(
            (self._makedirs(each, exist_ok=True) for each in directories), batch_size or self.batch_size
        )
        callback.set_size(len(files))
        put_file = callback.branch_coro(self._put_file)

        async def put(move: Move) -> None:
            try:
                await put_file(move.source, move.target, **kwargs)
            finally:
                callback.relative_update(1)

        targets = [move.target for move in files]
        await self._several(targets, batch_size).run(files, put, source_of)

    async def _get(
        self,
        rpath: str | Sequence[str],
        lpath: str | Path | Sequence[str],
        recursive: bool = False,
        callback: Callback = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        batch_size: int | None = None,
        **kwargs: object,
    ) -> None:
        directory: str | None = None
        if not isinstance(rpath, str) and not isinstance(lpath, str | os.PathLike):
            moves = [Move(*pair, False) for pair in zip(map(strip, rpath), map(str, lpath), strict=True)]
            check_targets(zip(rpath, map(os.path.abspath, map(str, lpath)), strict=True))
        else:
            base = make_path_posix(lpath)
            into = trailing_sep(base) or LocalFileSystem().isdir(base)
            moves = await self._plan(
                rpath,
                base,
                recursive=recursive,
                maxdepth=maxdepth,
                into=into,
                levels=LEVELS + 1,  # one that is too deep is refused
            )
            check_local(
                [move.source for move in moves], [move.target for move in moves], base.rstrip("/") or "/"
            )
            targets = [move.target.rstrip("/") for move in moves]
            check_apart([move.target for move in moves if not move.directory], targets)
            if moves:
                directory = directory_of(moves)
                os.makedirs(directory, exist_ok=True)
        callback.set_size(sum(not move.directory for move in moves))
        get_file = callback.branch_coro(self._get_file)
        others, written = OtherBuckets(), Written()

        async def get(move: Move) -> None:
            if move.directory:
                os.makedirs(move.target, exist_ok=True)
                return
            try:
                os.makedirs(os.path.dirname(move.target) or ".", exist_ok=True)
                if move.unreadable:
                    await self._check_link(move.source, others)
                replacing = partial(written.replacing, move.target, None)
                await get_file(move.source, move.target, replacing=replacing, **kwargs)
            finally:
                callback.relative_update(1)

        sources = [move.source for move in moves]
        await self._several(sources, batch_size, directory).run(moves, get, source_of)

    async def _rm(
        self,
        path: str | Sequence[str],
        recursive: bool = False,
        maxdepth: int | None = None,
        batch_size: int | None = None,
        **kwargs: object,
    ) -> None:
        with self._literally(path):
            await self._rm_each(path, recursive=recursive, maxdepth=maxdepth, batch_size=batch_size)

    async def _rm_each(
        self,
        path: str | Sequence[str],
        *,
        recursive: bool,
        maxdepth: int | None,
        batch_size: int | None,
    ) -> None:
        if recursive and maxdepth is None:
            roots: dict[str, None] = {}
            others = OtherBuckets()
            for given in [path] if isinstance(path, str) else path:
                each = strip(given)
                pattern = await self._is_pattern(given, others, removing=True)
                matches = cast("list[str]", await self._glob(each)) if pattern else [each]
                if not matches:
                    raise FileNotFoundError(errno.ENOENT, "no such file or directory", each)
                roots.update(dict.fromkeys(matches))
            await self._several(roots, 1).run(list(roots), lambda root: self._rm_tree(root, batch_size))
            return
        found = await self._expanded(path, recursive=recursive, maxdepth=maxdepth, removing=True)
        files = [each for each, entry in found.items() if entry["type"] != "directory"]
        if not recursive and len(files) < len(found):
            directory = next(each for each in found if each not in files)
            raise IsADirectoryError(errno.EISDIR, "this is a directory: use recursive=True", directory)
        await self._several(files, batch_size).run(files, self._rm_file)

    async def _rm_tree(self, path: str, batch_size: int | None) -> None:
        """Remove a bucket; or an object and everything whose name lies below, markers included."""
        bucket, name = split(path)
        if not bucket:
            raise PermissionError(errno.EPERM, "remove buckets by their names", "natsobj://")
        with os_errors(path):
            if not name:
                store = await self._store(bucket)
                await store.js.delete_object_store(bucket)
                self._connections.forget(bucket)
                return
            found = await self._read(bucket, lambda store: store.list(prefix=name))
            names = [info.name for info in found if info.name == name or is_within(info.name, name)]
            if not names:
                raise FileNotFoundError(errno.ENOENT, "no such file or directory", path)
            store = await self._store(bucket)

            async def delete(each: str) -> None:
                with os_errors(join(bucket, each)):
                    await store.delete(each)

            several = self._several([path], batch_size)
            await several.run(names, delete, lambda each: join(bucket, each), (FileNotFoundError,))

    # -- directories ------------------------------------------------------------------------------

    async def _mkdir(self, path: str, create_parents: bool = True, **options: Unpack[BucketFields]) -> None:
        """Create a bucket; below one there is nothing to do: a directory exists when a name lies in it.

        An empty object that marks a directory would be a strange file to every other client of the bucket.

        Args:
            path: a bucket; or a path in a bucket, which is created if ``create_parents`` is true.
            **options: of :meth:`natsproto.JetStreamContext.create_object_store`.
        """
        bucket, name = split(strip(path))
        if not bucket:
            raise FileExistsError(errno.EEXIST, "this is the root", path)
        with os_errors(path):
            try:
                await self._store(bucket, anew=not name)
            except BucketNotFoundError:
                if name and not create_parents:
                    raise
                options["bucket"] = bucket
                await (await self._connections.js()).create_object_store(**options)
                return
        if not name:
            raise FileExistsError(errno.EEXIST, "the bucket exists", path)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        try:
            await self._mkdir(path)
        except FileExistsError:
            if not exist_ok:
                raise

    async def _rmdir(self, path: str) -> None:
        """Remove an empty bucket, or the markers of an empty directory.

        Raises:
            OSError: it is not empty (``ENOTEMPTY``).
        """
        bucket, name = split(strip(path))
        if not bucket:
            raise PermissionError(errno.EPERM, "remove buckets by their names", "natsobj://")
        unreadable: list[InvalidMeta] = []
        tree = await self._tree(bucket, name, None if name else unreadable.append)
        if name in tree.files:
            raise NotADirectoryError(errno.ENOTDIR, "this is an object", path)
        if not tree.is_directory(name):
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        # A marker may have content, and so is not for granted.
        kept = [marker for marker in tree.markers if marker.size or marker.name.rstrip("/") != name]
        if tree.files or kept:
            raise OSError(errno.ENOTEMPTY, "the directory is not empty: use rm(recursive=True)", path)
        if unreadable:
            what = f"the bucket has metas that cannot be read ({unreadable[0].error})"
            raise OSError(errno.ENOTEMPTY, f"{what}: use rm(recursive=True)", path)
        with os_errors(path):
            store = await self._store(bucket)
            if name:
                for marker in tree.markers:
                    await store.delete(marker.name)
            else:
                await store.js.delete_object_store(bucket)
                self._connections.forget(bucket)

    def rmdir(self, path: str) -> None:
        """Remove an empty bucket, or the marker of an empty directory."""
        sync(self.loop, self._rmdir, path)


_TEXT = ("encoding", "errors", "newline")
"""Options of files in text mode."""
