"""The one error of the benchmarks: its text is one line that says what to do."""


class BenchError(Exception):
    """A benchmark cannot run; the command ends with one line and exit code 1."""
