"""The arguments of the commands, a file per group: a function per command adds them to a parser."""
