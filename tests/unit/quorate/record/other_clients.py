"""The codecs of two other clients of Kafka, to compare ours with."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # kafka-python warns about its own resources when imported
    from kafka.partitioner.default import murmur2 as kafka_python_murmur2
    from kafka.record.default_records import DefaultRecordBatch as KafkaPythonBatch
    from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaPythonBuilder

from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from aiokafka.record.default_records import DefaultRecordBatch as AiokafkaBatch
from aiokafka.record.default_records import DefaultRecordBatchBuilder as AiokafkaBuilder
from aiokafka.record.default_records import _DefaultRecordBatchPy as AiokafkaPythonBatch

__all__ = [
    "AiokafkaBatch",
    "AiokafkaBuilder",
    "AiokafkaPythonBatch",
    "KafkaPythonBatch",
    "KafkaPythonBuilder",
    "aiokafka_murmur2",
    "kafka_python_murmur2",
]
