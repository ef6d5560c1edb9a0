"""What all share: one bound bucket, how its messages are read, retries, limits, refusals, time to live."""
