"""JetStream: streams, publishing with acknowledgements, consumers, direct get.

:class:`natsproto.JetStreamContext` (from ``nc.jetstream()``) is the entry. ``api/`` holds what needs no
I/O: documents, error codes, acknowledgement subjects.
"""
