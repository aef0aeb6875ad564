"""The offset map of one compaction pass: the last offset of each key, in a fixed amount of memory.

The map has 16 bytes of BLAKE2b for each key, and not the key itself. Two keys with the same hash
would count as one, and the older record would be removed although it is the last of its key. So the
hash is cryptographic and has 128 bits, as many as Kafka's MD5: among a billion keys the chance that
any two have the same hash is below 10^-20. With MD5 a producer could make two keys with the same
hash. BLAKE2b has no known collisions, and each pass draws a random salt, so that no producer can
prepare such keys.

The newest keys are in a dict, which is fast: most logs have few keys, and write each of them often.
When the dict has many keys, they move into a table with open addressing. A dict of all keys would
need eight times the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b

HASH_BYTES = 16
#: Bytes of one slot: the hash, and the offset plus one. In a free slot the second field is 0.
SLOT_BYTES = HASH_BYTES + 8
#: The largest share of slots that is filled. With more, searches become long.
LOAD_MAX = 0.75
#: Most keys in the dict, and the length of its longest key.
_RECENT_MAX = 131_072
_RECENT_KEY_BYTES_MAX = 64


class OffsetMap:
    """The last offset of each key that was put. It never grows: call `has_room` first."""

    def __init__(self, bytes_max: int, salt: bytes) -> None:
        assert len(salt) == HASH_BYTES, len(salt)
        self._slots = max(bytes_max // SLOT_BYTES, 2)
        #: Number of keys for which there is room.
        self.keys_max = int(self._slots * LOAD_MAX)
        #: Number of keys in the table.
        self._in_table = 0
        self._hashes = bytearray(self._slots * HASH_BYTES)
        self._offsets = memoryview(bytearray(self._slots * 8)).cast("q")
        self._salt = salt
        #: Key -> its last offset. If the table has the key too, its offset there is lower.
        self._recent: dict[bytes, int] = {}

    @property
    def keys(self) -> int:
        """Number of keys in the map."""
        self._settle()
        return self._in_table

    def has_room(self, more: int) -> bool:
        """Return whether there is certainly room for `more` keys."""
        if self._in_table + len(self._recent) + more <= self.keys_max:
            return True
        return self.keys + more <= self.keys_max

    def put(self, found: Mapping[bytes, int]) -> None:
        """Put some keys, each with its last offset. The offsets of a key must grow."""
        recent = self._recent
        recent.update(found)
        longest = max(map(len, found), default=0)
        is_large = len(recent) > _RECENT_MAX or longest > _RECENT_KEY_BYTES_MAX
        if is_large or self._in_table + len(recent) > self.keys_max:
            self._settle()

    def get(self, key: bytes) -> int:
        """Return the last offset of a key; -1 if the key was never put."""
        found = self._recent.get(key)
        return self._offsets[self._slot_of(key)] - 1 if found is None else found

    def last_offsets(self) -> Iterator[int]:
        """Yield the last offset of each key. A lower offset of the key may come too."""
        yield from self._recent.values()
        if self._in_table:
            yield from (after - 1 for after in self._offsets if after)

    def _settle(self) -> None:
        """Move all keys into the table."""
        offsets = self._offsets
        for key, offset in self._recent.items():
            slot = self._slot_of(key)
            if not offsets[slot]:
                assert self._in_table < self.keys_max, "has_room was not asked"
                self._in_table += 1
            offsets[slot] = offset + 1
        self._recent.clear()

    def _slot_of(self, key: bytes) -> int:
        """Return the slot of a key, or the free slot where it belongs."""
        digest = blake2b(key, digest_size=HASH_BYTES, salt=self._salt).digest()
        slot = int.from_bytes(digest[:8], "big") % self._slots
        offsets, hashes = self._offsets, self._hashes
        while offsets[slot]:
            at = slot * HASH_BYTES
            if hashes[at : at + HASH_BYTES] == digest:
                return slot
            slot = slot + 1 if slot + 1 < self._slots else 0
        hashes[slot * HASH_BYTES : (slot + 1) * HASH_BYTES] = digest
        return slot
