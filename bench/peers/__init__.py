"""The clients that are compared, each in a process of its own: ``python -m bench.peers CLIENT URL``.

The process reads one JSON request a line and answers with one JSON line; ``bench/contestants.py`` is its
other end. Only ``ours.py`` imports the library, so that a peer can run with another interpreter that has
nothing installed but the peer.
"""
