"""The ``objstore`` command. Its parser is in ``main``; all else is loaded when needed."""
