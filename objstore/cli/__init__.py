"""The ``objstore`` command. Its parser is in :mod:`objstore.cli.main`; everything else is loaded when needed."""
