"""The JetStream API without I/O: JSON documents, error codes, delivery subjects."""
