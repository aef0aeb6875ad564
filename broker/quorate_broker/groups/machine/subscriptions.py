"""Which topics the groups of a shard subscribe to: by name, and by pattern.

Patterns come from outside, so they are matched by RE2, whose time is linear in the length of a
name: no pattern can stop the coordinator. A new pattern is matched against all names of topics, in
parts; later only against names that change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import re2

from quorate.errors import InvalidPatternError, OverloadedError
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.topics import Topic, Topics
from quorate_quorum.metadata.topics import INTERNAL_PREFIX

#: The most memory of one compiled pattern, the states that it meets included. It also bounds the
#: time of one match: where this memory does not do, RE2 walks the whole program at each letter.
PATTERN_MEMORY_BYTES_MAX: Final = 128 << 10
#: What one step may spend on matching, in instructions of compiled patterns times names: at most
#: about 20 ms, for names of 249 letters and the worst of patterns. One name is always matched.
WORK_PER_STEP: Final = 40_000


def compiled(pattern: str) -> Any:
    """Return a compiled pattern. InvalidPatternError: RE2 refuses it."""
    options = re2.Options()
    options.max_mem = PATTERN_MEMORY_BYTES_MAX
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern, options=options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else error
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise InvalidPatternError(
            f"the pattern {pattern[:200]!r} does not compile as RE2: {text}"
        ) from None


@dataclass(slots=True)
class Matches:
    """One pattern, and the topics that it matches."""

    regexp: Any
    #: Names of topics that were not looked at yet.
    rest: Iterator[str]
    #: Names that changed since, and were not looked at again yet.
    late: dict[str, None] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    #: The groups that use it.
    group_ids: dict[str, None] = field(default_factory=dict)

    def part(self, most: int) -> list[str]:
        """Take some of the names that wait, `most` or fewer; fewer: no other waits."""
        part = list(islice(self.rest, most))
        while self.late and len(part) < most:
            part.append(self.late.popitem()[0])
        return part

    def look_at(self, name: str, topics: Topics) -> bool:
        """Return whether a name that changed belongs to a topic that matches, or did so before."""
        is_matched = (
            not name.startswith(INTERNAL_PREFIX)
            and topics.named(name) is not None
            and self.regexp.fullmatch(name.encode()) is not None
        )
        was_matched = name in self.names
        if is_matched:
            self.names.add(name)
        else:
            self.names.discard(name)
        return is_matched or was_matched


class Subscriptions:
    """The names and patterns that groups subscribe to, and what they are in the present image."""

    def __init__(self, config: GroupsConfig, topics: Topics) -> None:
        self._config = config
        self.topics = topics
        self._patterns: dict[str, Matches] = {}
        #: Those that were not matched against all names yet.
        self._unmatched: dict[str, Matches] = {}
        #: By topic name: the groups that name it. Dicts keep their order, sets do not.
        self._named: dict[str, dict[str, None]] = {}

    def check_room(self, pattern: str) -> None:
        """Raise OverloadedError for a pattern that would be one too many."""
        most = self._config.patterns_max
        if pattern and pattern not in self._patterns and len(self._patterns) >= most:
            raise OverloadedError(
                f"the groups of this coordinator have {most} different patterns, the most that it "
                "takes: name topics, or use a pattern that members have already"
            )

    def follow(self, group_id: str, names: frozenset[str], pattern: str) -> None:
        """A member of the group begins to subscribe. The pattern must have been compiled once."""
        for name in names:
            self._named.setdefault(name, {})[group_id] = None
        if not pattern:
            return
        matches = self._patterns.get(pattern)
        if matches is None:
            matches = Matches(compiled(pattern), self.topics.names())
            self._patterns[pattern] = self._unmatched[pattern] = matches
        matches.group_ids[group_id] = None

    def unfollow(self, group_id: str, names: frozenset[str], pattern: str) -> None:
        """No member of the group subscribes to these any more."""
        for name in names:
            groups = self._named.get(name, {})
            groups.pop(group_id, None)
            if not groups:
                self._named.pop(name, None)
        matches = self._patterns.get(pattern)
        if matches is not None:
            matches.group_ids.pop(group_id, None)
            if not matches.group_ids:
                del self._patterns[pattern]
                self._unmatched.pop(pattern, None)

    def is_known(self, pattern: str) -> bool:
        """Return whether every name was matched against the pattern, or there is no pattern."""
        return pattern not in self._unmatched

    def is_too_wide(self, pattern: str) -> bool:
        """Return whether a pattern matches more topics than a subscription may have."""
        matches = self._patterns.get(pattern)
        return matches is not None and len(matches.names) > self._config.subscription_topics_max

    def topics_of(self, names: frozenset[str], pattern: str) -> list[Topic]:
        """Return the topics that there are now, by name."""
        matches = self._patterns.get(pattern)
        every = names if matches is None else names | matches.names
        found = (self.topics.named(name) for name in sorted(every))
        return [topic for topic in found if topic is not None]

    def changed(self, topics: Topics, names: frozenset[str]) -> list[str]:
        """Take a newer image; return the groups that subscribe to a topic that changed.

        Patterns for which no time is left are matched later, by `match_some`.
        """
        self.topics = topics
        listed = sorted(names)
        affected: dict[str, None] = {}
        for name in listed:
            affected |= self._named.get(name, {})
        room = WORK_PER_STEP
        for pattern, matches in self._patterns.items():
            room -= matches.regexp.programsize * len(listed)
            if room < 0:
                matches.late |= dict.fromkeys(listed)
                self._unmatched[pattern] = matches
            elif [name for name in listed if matches.look_at(name, topics)]:
                affected |= matches.group_ids
        return list(affected)

    @property
    def has_unmatched(self) -> bool:
        """Whether some pattern was not matched against all names yet."""
        return bool(self._unmatched)

    def match_some(self) -> list[str]:
        """Match a part of the names; return the groups of the patterns that are known now."""
        names, work = self._config.names_per_step, WORK_PER_STEP
        known: dict[str, None] = {}
        for pattern, matches in [*self._unmatched.items()]:
            most = min(names, max(work // matches.regexp.programsize, 1))
            part = matches.part(most)
            for name in part:
                matches.look_at(name, self.topics)
            names -= len(part)
            work -= len(part) * matches.regexp.programsize
            if len(part) < most:
                del self._unmatched[pattern]
                known |= matches.group_ids
            if names <= 0 or work <= 0:
                break
        return list(known)
