"""The table of topic configurations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quorate.errors import InvalidConfigError
from quorate.record.compression import GZIP, LZ4, NONE, SNAPPY, ZSTD
from quorate_quorum.config_kinds import LONG_MAX
from quorate_quorum.configs import (
    CONFIGS,
    DEFAULT_TOPIC_CONFIG,
    TopicConfig,
    check_config,
    effective,
    effective_min_isr,
)


def test_a_topic_without_configs_has_the_defaults() -> None:
    config = DEFAULT_TOPIC_CONFIG
    assert config.cleanup_policy == "delete"
    assert config.retention_ms == 7 * 24 * 3600 * 1000
    assert config.retention_bytes == -1
    assert config.segment_bytes == 1 << 30
    assert config.max_message_bytes == 1_048_588
    assert config.min_insync_replicas == 2
    assert config.flush_on_ack is False
    assert config.unclean_leader_election_enable is False


def test_a_topics_own_value_wins_over_the_clusters_over_the_default() -> None:
    config = TopicConfig.of({"retention.ms": "1"}, {"retention.ms": "2", "segment.ms": "3"})
    assert (config.retention_ms, config.segment_ms) == (1, 3)
    assert effective("retention.ms", {"retention.ms": "1"}, {"retention.ms": "2"}) == ("1", "topic")
    assert effective("retention.ms", {}, {"retention.ms": "2"}) == ("2", "cluster")
    assert effective("flush.on.ack", {}, {}) == ("false", "default")


def test_flush_on_ack_is_a_topics_own_for_good() -> None:
    """A cluster default set later must not make an old replica pass for lossless."""
    assert TopicConfig.of({}, {"flush.on.ack": "true"}).flush_on_ack is False
    assert effective("flush.on.ack", {}, {"flush.on.ack": "true"}) == ("false", "default")
    assert effective("flush.on.ack", None, {"flush.on.ack": "true"}) == ("true", "cluster")


@pytest.mark.parametrize(
    ("name", "text", "stored"),
    [
        ("cleanup.policy", "delete, compact", "compact,delete"),
        ("cleanup.policy", "", ""),
        ("leader.replication.throttled.replicas", " * ", "*"),
        ("leader.replication.throttled.replicas", "", ""),
        ("follower.replication.throttled.replicas", "0:1, 7:2,0:1,", "0:1,7:2"),
        ("retention.ms", "-1", "-1"),
        ("flush.on.ack", "TRUE", "true"),
        ("min.cleanable.dirty.ratio", "0.25", "0.25"),
        ("message.timestamp.type", "LogAppendTime", "LogAppendTime"),
        ("compression.type", "uncompressed", "uncompressed"),
        ("compression.gzip.level", "-1", "-1"),
        ("compression.lz4.level", "17", "17"),
        ("compression.zstd.level", "-131072", "-131072"),
    ],
)
def test_a_value_is_stored_in_one_form(name: str, text: str, stored: str) -> None:
    assert check_config(name, text, of_topic=True) == stored


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("retention.ms", "-2"),
        ("retention.ms", "seven"),
        ("retention.ms", "1_000"),
        ("retention.ms", "9" * 30),
        ("retention.ms", "٣"),
        ("min.insync.replicas", "0"),
        ("segment.bytes", str(2**31)),
        ("flush.on.ack", "yes"),
        ("cleanup.policy", "burn"),
        ("min.cleanable.dirty.ratio", "nan"),
        ("min.cleanable.dirty.ratio", "1.5"),
        ("compression.type", "none"),
        ("compression.type", "brotli"),
        ("compression.gzip.level", "0"),
        ("compression.gzip.level", "10"),
        ("compression.lz4.level", "0"),
        ("compression.lz4.level", "18"),
        ("compression.zstd.level", "23"),
        ("compression.zstd.level", "-131073"),
        ("message.timestamp.type", "createtime"),
    ],
)
def test_a_wrong_value_names_the_setting_and_what_is_allowed(name: str, text: str) -> None:
    with pytest.raises(InvalidConfigError, match=f"{name} must be .*, not"):
        check_config(name, text, of_topic=True)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(InvalidConfigError, match=r"did you mean retention\.ms\?"):
        check_config("retension.ms", "1", of_topic=True)


def test_an_unknown_name_that_is_near_none_is_told_all_that_are_allowed() -> None:
    with pytest.raises(InvalidConfigError, match=r"known are cleanup\.policy") as of_topic:
        check_config("zzz", "1", of_topic=True)
    with pytest.raises(InvalidConfigError, match=r"known are cleanup\.policy") as of_cluster:
        check_config("zzz", "1", of_topic=False)
    assert "num.partitions" in str(of_cluster.value)
    assert "num.partitions" not in str(of_topic.value)


def test_what_is_the_clusters_cannot_be_set_on_a_topic() -> None:
    with pytest.raises(InvalidConfigError, match="belongs to the cluster"):
        check_config("num.partitions", "3", of_topic=True)
    assert check_config("num.partitions", "3", of_topic=False) == "3"


def test_a_replication_factor_of_none_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="must be -1, or 1 to 1000, not '0'"):
        check_config("default.replication.factor", "0", of_topic=False)
    assert check_config("default.replication.factor", "-1", of_topic=False) == "-1"


def test_every_setting_has_a_meaning_and_a_default_that_it_accepts() -> None:
    for spec in CONFIGS.values():
        assert spec.doc
        assert spec.parsed(spec.shown(spec.default)) == spec.default


def test_a_commit_needs_no_more_replicas_than_there_are() -> None:
    assert [effective_min_isr(2, replicas) for replicas in (1, 2, 3)] == [1, 2, 2]


ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", [name for name, spec in CONFIGS.items() if spec.scope == "topic"])
def test_some_code_acts_on_every_setting(name: str) -> None:
    table = ROOT / "quorum/quorate_quorum/configs.py"
    lists = (table, ROOT / "quorum/quorate_quorum/node/config.py")
    if name.startswith("compression."):
        reads = r"|config\.codec_level\b" if name.endswith(".level") else r"|config\.codec\b"
    else:
        reads = {"cleanup.policy": r"|\.(compacts|deletes)\b"}.get(name, "")
    word = re.compile(rf"\b{name.replace('.', '[._]')}\b{reads}")
    acts = any(
        word.search(path.read_text())
        for folder in ("broker", "quorum")
        for path in (ROOT / folder).rglob("*.py")
        if path not in lists
    )
    assert acts


def test_a_topic_names_its_codec_and_the_level_of_it() -> None:
    def of(name: str) -> tuple[int | None, int | None]:
        config = TopicConfig.of(
            {
                "compression.type": name,
                "compression.gzip.level": "4",
                "compression.lz4.level": "5",
                "compression.zstd.level": "6",
            },
            {},
        )
        return config.codec, config.codec_level

    assert of("producer") == (None, None)
    assert of("uncompressed") == (NONE, None)
    assert of("gzip") == (GZIP, 4)
    assert of("snappy") == (SNAPPY, None)
    assert of("lz4") == (LZ4, 5)
    assert of("zstd") == (ZSTD, 6)
    assert (DEFAULT_TOPIC_CONFIG.codec, DEFAULT_TOPIC_CONFIG.codec_level) == (None, None)


def test_a_number_that_is_too_large_is_refused_with_the_largest() -> None:
    with pytest.raises(InvalidConfigError, match=f"-1 or more and at most {LONG_MAX}, not"):
        check_config("retention.ms", str(LONG_MAX + 1), of_topic=True)
