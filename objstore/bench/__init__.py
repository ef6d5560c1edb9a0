"""Measuring a server: what ``objstore bench`` runs, and what the repository's own ``bench/`` is built on.

Nothing here prints, and nothing here knows the command line: :mod:`objstore.cli.bench` does.
"""
