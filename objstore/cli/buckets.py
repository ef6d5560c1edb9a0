"""The commands on buckets."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from .connection import session
from .output import Output, status_document

if TYPE_CHECKING:
    from objstore.format.models import BucketFields


async def add(args: Namespace, out: Output) -> None:
    """``bucket add BUCKET``."""
    params: BucketFields = {
        "bucket": args.bucket,
        "description": args.description,
        "ttl": args.ttl,
        "max_bytes": -1 if args.max_bytes is None else args.max_bytes,
        "storage": args.storage,
        "replicas": args.replicas,
        "compression": args.compress,
        "metadata": dict(args.metadata) or None,
    }
    async with session(args, out) as link:
        store = await link.steady(lambda: link.js.create_object_store(**params))
        if out.json:
            out.document(status_document(await store.status()))
        else:
            out.note(f"bucket {args.bucket!r} is ready")
