"""The one error of the benchmarks: its text is a line that says what to do."""


class BenchError(Exception):
    """A benchmark cannot run; ends the command with one line and exit code 1."""
