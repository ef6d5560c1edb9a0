"""Commit metas, and decide who may remove which chunks."""
