"""Read objects: whole, as ranges, as a stream, into files."""
