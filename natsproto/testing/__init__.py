"""Tools for testing things that speak NATS. None of them needs pytest.

* :class:`ScriptedServer`: a fake server that sends and expects exactly what its script says.
* :class:`FaultProxy`: sits between a client and a real server and drops, duplicates, corrupts, delays and
  re-splits frames; resets connections; lets nothing through.
* :mod:`natsproto.testing.plugin`: fixtures with a real server, for pytest; loaded only on request.

Real servers are in :mod:`natsproto.server`.
"""

from .proxy import CUT, DROP, DUPLICATE, HOLD, Action, FaultProxy, Hook, corrupt, cut_after, delay
from .scripted import PeerGoneError, ScriptedConnection, ScriptedServer, ScriptError

__all__ = [
    # scripted
    "ScriptedServer",
    "ScriptedConnection",
    "ScriptError",
    "PeerGoneError",
    # proxy
    "FaultProxy",
    "Hook",
    "Action",
    "DROP",
    "DUPLICATE",
    "HOLD",
    "CUT",
    "corrupt",
    "cut_after",
    "delay",
]
