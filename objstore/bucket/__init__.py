"""What all operations share: one bound bucket, message reads, retries, limits, refusals, time to live."""
