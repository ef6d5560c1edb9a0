"""Objects stored: sources, chunks, one put, one batch, uploads that may be interrupted."""
