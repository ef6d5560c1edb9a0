"""The ADR-20 format as values and functions: no sockets, no clock, no event loop.

* :mod:`~objstore.format.naming` — bucket, stream, subject and object names
* :mod:`~objstore.format.models` — the data types users see
* :mod:`~objstore.format.records` — those as plain values: ``to_dict()``
* :mod:`~objstore.format.codec` — meta messages and stream configurations as JSON
* :mod:`~objstore.format.digest` — SHA-256 digests in their written and their wire form
* :mod:`~objstore.format.chunking` — splits any source of buffers into chunks of one size
* :mod:`~objstore.format.assembly` — turns chunks back into a verified object

Nothing is imported here, so that callers load only what they use.
"""
