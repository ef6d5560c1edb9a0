"""Benchmarks: how fast the object store is, against other clients and against what the machine allows."""
