"""Kafka record batch v2: what lies on disk, what travels, and what the CRC covers."""
