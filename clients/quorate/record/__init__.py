"""Kafka record batch v2: the same bytes on disk and on the wire."""
