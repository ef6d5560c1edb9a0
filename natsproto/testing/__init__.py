"""Tools for testing things that speak NATS. None of them needs pytest.

* :class:`ScriptedServer`: a fake server that says and expects exactly what a script tells it.
* :class:`FaultProxy`: sits between a client and a real server and loses, repeats, damages, delays and
  re-splits what passes, frame by frame; cuts connections; swallows everything.
* :mod:`natsproto.testing.plugin`: fixtures with a real server, for pytest; loaded only where asked for.

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
