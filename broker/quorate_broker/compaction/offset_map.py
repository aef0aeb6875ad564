"""The offset map of one compaction pass: the last offset of each key, in a fixed amount of memory.

The map has 16 bytes of BLAKE2b for each key, and not the key itself. Two keys with the same hash
would count as one, and the older record would be removed although it is the last of its key. So the
hash is cryptographic and has 128 bits, as many as Kafka's MD5: among a billion keys the chance that
any two have the same hash is below 10^-20. With MD5 a producer could make two keys with the same
hash. BLAKE2b has no known collisions, and each pass draws a random salt, so that no producer can
prepare such keys.

The table uses open addressing. A dict would need eight times the memory for each key.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

HASH_BYTES = 16
#: Bytes of one slot: the hash, and the offset plus one. In a free slot the second field is 0.
SLOT_BYTES = HASH_BYTES + 8
#: The largest share of slots that is filled. With more, searches become long.
LOAD_MAX = 0.75
#: Most keys whose slot is remembered, and their largest length. A hash costs more than the rest of
#: a search.
_KNOWN_MAX = 131_072
_KNOWN_KEY_BYTES_MAX = 64


class OffsetMap:
    """The last offset of each key that was put. It never grows: call `has_room` first."""

    def __init__(self, bytes_max: int, salt: bytes) -> None:
        assert len(salt) == HASH_BYTES, len(salt)
        self._slots = max(bytes_max // SLOT_BYTES, 2)
        #: Number of keys for which there is room.
        self.keys_max = int(self._slots * LOAD_MAX)
        #: Number of keys in the map.
        self.keys = 0
        self._hashes = bytearray(self._slots * HASH_BYTES)
        self._offsets = memoryview(bytearray(self._slots * 8)).cast("q")
        self._salt = salt
        #: Key -> its slot, for some keys.
        self._known: dict[bytes, int] = {}

    def has_room(self, more: int) -> bool:
        """Return whether there is certainly room for `more` keys."""
        return self.keys + more <= self.keys_max

    def put(self, records: Iterable[tuple[bytes, int]]) -> None:
        """Put the keys and offsets of some records. The offsets of a key must grow."""
        known, offsets = self._known, self._offsets
        for key, offset in records:
            slot = known.get(key, -1)
            if slot < 0:
                slot = self._slot_of(key)
                if not offsets[slot]:
                    assert self.keys < self.keys_max, "has_room was not asked"
                    self.keys += 1
            offsets[slot] = offset + 1

    def get(self, key: bytes) -> int:
        """Return the last offset of a key; -1 if the key was never put."""
        slot = self._known.get(key, -1)
        return self._offsets[self._slot_of(key) if slot < 0 else slot] - 1

    def _slot_of(self, key: bytes) -> int:
        """Return the slot of a key, or the free slot where it belongs."""
        digest = blake2b(key, digest_size=HASH_BYTES, salt=self._salt).digest()
        slot = int.from_bytes(digest[:8], "big") % self._slots
        offsets, hashes = self._offsets, self._hashes
        while offsets[slot]:
            at = slot * HASH_BYTES
            if hashes[at : at + HASH_BYTES] == digest:
                self._remember(key, slot)
                return slot
            slot = slot + 1 if slot + 1 < self._slots else 0
        hashes[slot * HASH_BYTES : (slot + 1) * HASH_BYTES] = digest
        return slot

    def _remember(self, key: bytes, slot: int) -> None:
        """Remember the slot of a key that was searched a second time."""
        if len(key) <= _KNOWN_KEY_BYTES_MAX:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[key] = slot
