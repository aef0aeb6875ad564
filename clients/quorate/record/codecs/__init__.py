"""The codecs of record batches, one module each. Other packages use them through `compression`."""
