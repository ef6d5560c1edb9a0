"""The one way metas are committed, and who may remove which chunks."""
