"""``watch``: show changes as they happen, or run a command for each."""

from __future__ import annotations

import asyncio
import os
from argparse import Namespace
from contextlib import aclosing
from typing import TYPE_CHECKING

from natsproto._values import printable

from .connection import session
from .output import Output, human_size, human_time, object_document

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from objstore.format.models import ObjectInfo
    from objstore.store import ObjectStore

PATIENCE = 5.0
"""Seconds that a command of ``--exec`` may take to end after an interrupt."""


async def watch(args: Namespace, out: Output) -> None:
    """``watch BUCKET [PREFIX]``, until it is interrupted, or has seen ``--count`` changes."""
    async with session(args, out) as link:
        store = await link.open(args.bucket)
        async with aclosing(_changes(store, args)) as changes:
            async for info in changes:
                if args.exec is not None:
                    await _run(args.exec, info, out)
                else:
                    _show(info, out)
                    await out.flow()


async def _changes(store: ObjectStore, args: Namespace) -> AsyncGenerator[ObjectInfo]:
    left = args.count
    async with store.watch(
        updates_only=not args.all and args.from_revision is None,
        from_revision=args.from_revision,
        prefix=args.prefix,
        ignore_deletes=args.ignore_deletes,
    ) as watcher:
        async for info in watcher:
            yield info
            if left is not None:
                left -= 1
                if left == 0:
                    return


def _show(info: ObjectInfo, out: Output) -> None:
    if out.json:
        out.record(object_document(info))
        return
    what, size = ("DEL", "") if info.deleted else ("PUT", human_size(info.size))
    out.lines([f"{human_time(info.mtime)}  {what}  {size:>10}  {printable(info.name)}"])


async def _run(command: str, info: ObjectInfo, out: Output) -> None:
    """Run a shell command for one change, and wait for it; its failure is a warning.

    Others choose the names: they are in the environment and in the JSON document on standard input, and no
    part of the command's text. The command is not run for a name that does not fit into an environment: it
    would find an empty one, which means everything to many commands.
    """
    import json
    import subprocess

    what = f"revision {info.revision}, {info.name!r}"
    if not _fits(info.name):
        out.warn(f"--exec: the command is not run for {what}: the name does not fit into an environment")
        return
    try:
        process = await asyncio.create_subprocess_shell(
            command, stdin=subprocess.PIPE, env={**os.environ, **_variables(info)}
        )
    except (OSError, ValueError) as exc:
        out.warn(f"--exec: the command cannot be run for {what}: {exc}")
        return
    try:
        await process.communicate(json.dumps(object_document(info)).encode() + b"\n")
    finally:
        if process.returncode is None:  # we are interrupted
            await _end(process)
    if process.returncode:
        out.warn(f"--exec: exit code {process.returncode} for {what}")


def _fits(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # the encoding of this system does not have one of its characters
        return False


def _variables(info: ObjectInfo) -> dict[str, str]:
    """Return what a command finds in its environment: what has a bounded size."""
    from objstore.format.digest import parse_digest

    variables = {
        "OBJSTORE_EVENT": "delete" if info.deleted else "put",
        "OBJSTORE_BUCKET": info.bucket,
        "OBJSTORE_NAME": info.name,
        "OBJSTORE_REVISION": str(info.revision),
        "OBJSTORE_SIZE": str(info.size),
        "OBJSTORE_DIGEST": info.digest,
    }
    try:
        parse_digest(info.digest)
    except ValueError:  # a writer of the bucket has put any text there
        variables["OBJSTORE_DIGEST"] = ""  # as for a link and a deletion, which have none
    return variables


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    try:
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
