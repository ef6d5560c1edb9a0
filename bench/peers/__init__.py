"""The compared clients, each in a process of its own: ``python -m bench.peers CLIENT URL``.

The process reads one JSON request per line and answers with one JSON line; ``bench/contestants.py`` is the
other end. Only ``ours.py`` imports this library, so a peer can run with another interpreter that has only the
peer installed.
"""
