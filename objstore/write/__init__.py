"""Store objects: sources, chunks, one put, one batch, resumable uploads."""
