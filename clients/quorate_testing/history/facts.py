"""What a history tells: writers, readers and version orders, from one pass over its operations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from quorate_testing.history.kept import ALL, Kept
from quorate_testing.history.operations import Name, Operation, Send
from quorate_testing.history.version_order import VersionOrder

#: The number of an operation: its index in the history, in the order of starts.
Number = int


class Facts:
    """A history with its indices, for the rules. Nothing changes after the constructor."""

    def __init__(self, operations: Sequence[Operation], kept: Mapping[str, Kept]) -> None:
        self.operations = operations
        self._kept = kept
        #: Key -> value -> the first operation that sent it, failed ones only if there is no other.
        self.writers: dict[str, dict[Name, Number]] = defaultdict(dict)
        #: (key, value, operation) of sends of a value that another send had written already.
        self.rewrites: list[tuple[str, Name, Number]] = []
        #: Key -> value -> the first operation that is done and polled it.
        self.readers: dict[str, dict[Name, Number]] = defaultdict(dict)
        self.orders: dict[str, VersionOrder] = defaultdict(VersionOrder)
        #: Key -> record key -> the last offset of it; compacted keys only.
        self._last_of_record_key: dict[str, dict[Name, int]] = defaultdict(dict)
        #: The operations of a process between two crashes, in order.
        self.sessions: list[list[Number]] = []
        #: The polls of processes whose partitions a group gives: those after a "subscribe".
        self.subscribed: set[Number] = set()
        #: Process -> how many records it polled.
        self.polled: Counter[Name] = Counter()
        self._index()
        self._order()

    def writer(self, key: str, value: Name) -> Number | None:
        """Return the operation that sent a value."""
        return self.writers[key].get(value) if key in self.writers else None

    def reader(self, key: str, value: Name) -> Number | None:
        """Return the first operation that is done and polled a value."""
        return self.readers[key].get(value) if key in self.readers else None

    def offset_of(self, number: Number, send: Send) -> int | None:
        """Return where a record was written, as far as the history tells."""
        if send.offset is not None and self.is_committed(number, send.key, send.value):
            return send.offset
        return self.orders[send.key].first.get(send.value) if send.key in self.orders else None

    def is_committed(self, number: Number, key: str, value: Name) -> bool:
        """Return whether this record must have been written.

        It must if its operation is done. If the outcome is not known, it must if the record was
        read. A transaction takes effect as a whole, so there one record of it that was read will
        do.
        """
        operation = self.operations[number]
        if operation.outcome != "unknown":
            return operation.outcome == "done"
        if operation.kind == "txn":
            sends = operation.sends()
            return any(self.reader(send.key, send.value) is not None for send in sends)
        return self.reader(key, value) is not None

    def may_lack(self, key: str, value: Name, offset: int) -> bool:
        """Return whether a reader may have missed this record without an error."""
        kept = self._kept.get(key, ALL)
        if offset < kept.log_start or value in kept.may_lack:
            return True
        if not kept.compacted:
            return False
        record_key = self._record_key(key, value)
        return record_key is not None and self._last_of_record_key[key][record_key] > offset

    def may_lack_somewhere(self, key: str, value: Name) -> bool:
        """Return whether a reader may have missed a record whose offset is not known."""
        kept = self._kept.get(key, ALL)
        return kept.log_start > 0 or kept.compacted or value in kept.may_lack

    def _record_key(self, key: str, value: Name) -> Name | None:
        number = self.writer(key, value)
        if number is None:
            return None
        sends = self.operations[number].sends()
        return next((s.record_key for s in sends if (s.key, s.value) == (key, value)), None)

    def _index(self) -> None:
        """Find writers, readers and sessions, and what polls say about offsets."""
        current: dict[Name, list[Number]] = {}
        subscribed: dict[Name, bool] = {}
        for number, operation in enumerate(self.operations):
            process = operation.process
            session = current.get(process)
            if session is None or operation.kind == "crash":
                session = current[process] = []
                self.sessions.append(session)
            session.append(number)
            if operation.kind in {"assign", "subscribe"} and operation.outcome != "failed":
                subscribed[process] = operation.kind == "subscribe"
            if subscribed.get(process):
                self.subscribed.add(number)
            for step in operation.steps:
                if isinstance(step, Send):
                    self._index_send(number, step)
            self._index_polls(number, operation)

    def _index_send(self, number: Number, send: Send) -> None:
        writers = self.writers[send.key]
        first = writers.get(send.value)
        if first is None or self.operations[first].outcome == "failed":
            writers[send.value] = number  # a retry of what certainly failed may use its value
        elif self.operations[number].outcome != "failed":
            self.rewrites.append((send.key, send.value, number))

    def _index_polls(self, number: Number, operation: Operation) -> None:
        """A poll shows what is in the log, whatever becomes of its operation."""
        is_done = operation.outcome == "done"
        for key, records in operation.polls():
            add = self.orders[key].add
            readers = self.readers[key]
            for offset, value in records:
                add(offset, value)
                if is_done:
                    readers.setdefault(value, number)
            if is_done:
                self.polled[operation.process] += len(records)

    def _order(self) -> None:
        """Add what committed sends say about offsets, and make the orders."""
        for number, send in self._all_sends():
            if send.offset is not None and self.is_committed(number, send.key, send.value):
                self.orders[send.key].add(send.offset, send.value)
        for order in self.orders.values():
            order.sort()
        for _number, send in self._all_sends():
            if send.record_key is None or not self._kept.get(send.key, ALL).compacted:
                continue
            offset = self.orders[send.key].last(send.value)
            if offset is not None:
                last = self._last_of_record_key[send.key]
                last[send.record_key] = max(offset, last.get(send.record_key, offset))

    def _all_sends(self) -> Iterator[tuple[Number, Send]]:
        for number, operation in enumerate(self.operations):
            for step in operation.steps:
                if isinstance(step, Send):
                    yield number, step
