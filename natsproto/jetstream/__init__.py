"""JetStream: streams, publishing with acknowledgements, consumers, direct get.

Start at :class:`natsproto.JetStreamContext` (from ``nc.jetstream()``). ``api/`` holds the parts without
I/O: JSON documents, error codes, acknowledgement subjects.
"""
