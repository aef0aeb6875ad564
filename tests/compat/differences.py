"""Why a case passes on Apache Kafka and not on Quorate: a sentence for each."""

from __future__ import annotations

DIFFERENCES: dict[str, dict[str, str]] = {
    "kafka-tools": {
        "kafka-configs of brokers: --alter": (
            "configs of the cluster are altered by `quorate cluster config`, and those of a broker"
            " in its file"
        ),
        "kafka-configs of groups: --describe, --alter": "a group has no configs of its own",
        "kafka-features describe": "Kafka's features are not told: there is no metadata.version",
    },
    "kafka-python": {
        "test_admin_integration::test_alter_replica_log_dirs": (
            "a replica stays in its log directory"
        ),
        "test_producer_integration::test_transactional_producer_messages": (
            "there are no transactions"
        ),
        "test_producer_integration::test_transactional_producer_offsets": (
            "there are no transactions"
        ),
    },
    "librdkafka": {
        "0055_producer_latency": "the last of its eight cases uses transactions",
        "0061_consumer_lag": "its second half uses transactions",
        "0077_compaction": "its topics set `file.delete.delay.ms`, which Quorate does not have",
        "0137_barrier_batch_consume": "one of its parts uses transactions",
        "0081_admin: AlterConfigs": "configs of brokers are not altered by Kafka's protocol",
        "0081_admin: IncrementalAlterConfigs": (
            "configs of brokers and of groups are not altered by Kafka's protocol"
        ),
        "0081_admin: UserScramCredentials": "there is no SASL, and so there are no users",
    },
}
