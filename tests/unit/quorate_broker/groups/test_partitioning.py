"""A group belongs to the same partition of __consumer_offsets as with Kafka."""

from __future__ import annotations

import pytest

from quorate_broker.groups.partitioning import partition_of, string_hash


@pytest.mark.parametrize(
    ("text", "java"),
    [
        ("", 0),
        ("a", 97),
        ("hello", 99_162_322),
        ("The quick brown fox jumps over the lazy dog", -609_428_141),
        ("ü", 252),
        ("€", 8_364),
        # two UTF-16 units: 0xD83D, 0xDE00
        ("\U0001f600", 0xD83D * 31 + 0xDE00),
        ("a\U0001f600", (97 * 31 + 0xD83D) * 31 + 0xDE00),
        ("\uffff", 0xFFFF),
        # the least number of 32 bits
        ("polygenelubricants", -(2**31)),
    ],
)
def test_the_hash_is_that_of_java_s_strings(text: str, java: int) -> None:
    assert string_hash(text) == java & 0xFFFF_FFFF


@pytest.mark.parametrize(
    ("group_id", "partitions", "partition"),
    [
        ("hello", 16, 99_162_322 % 16),
        ("hello", 50, 22),
        # Utils.abs takes the sign bit away: -609428141 & 0x7fffffff is 1538055507
        ("The quick brown fox jumps over the lazy dog", 50, 1_538_055_507 % 50),
        # Math.abs of it would stay below 0
        ("polygenelubricants", 50, 0),
        ("\U0001f600", 50, 1_772_899 % 50),
        ("", 16, 0),
    ],
)
def test_the_partition_is_the_hash_without_its_sign_bit(
    group_id: str, partitions: int, partition: int
) -> None:
    assert partition_of(group_id, partitions) == partition
