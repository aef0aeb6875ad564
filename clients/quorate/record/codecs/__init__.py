"""The codecs of record batches, one module each. `compression` is their door."""
