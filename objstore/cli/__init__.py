"""The ``objstore`` command. Its parser is in ``main``; everything else is loaded when needed."""
