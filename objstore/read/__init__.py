"""Objects read: whole, as ranges, as a stream, into files."""
