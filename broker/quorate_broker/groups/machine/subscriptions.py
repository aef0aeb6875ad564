"""Which topics the groups of a shard subscribe to: by name, and by pattern.

Patterns come from outside, so they are matched by RE2 (quorate.topic_pattern). A new pattern is
matched against all names of topics, in parts; later only against names that change.

A pattern matches only topics that the principal of the member may describe. The member could not
read other topics, and their partitions would stay unread. The coordinator asks for the rights when
it matches a name, and again from time to time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, NamedTuple

from quorate.errors import OverloadedError
from quorate.net.principal import Principal
from quorate.topic_pattern import compiled
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.topics import Topic, Topics
from quorate_quorum.metadata.topics import INTERNAL_TOPICS

#: What one step may spend on matching, in instructions of compiled patterns times names: at most
#: about 20 ms, for names of 249 letters and the worst of patterns. One name is always matched.
WORK_PER_STEP: Final = 40_000

#: Whether a principal may describe the topic of this name.
MayDescribe = Callable[[Principal, str], bool]


class View(NamedTuple):
    """A pattern, and whose rights decide which topics it matches."""

    pattern: str
    principal: Principal


def all_may_describe(principal: Principal, topic: str) -> bool:
    """Let every principal see every topic."""
    return True


def hash_of(name: str) -> int:
    """Return a hash of a name that is the same in every process."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


@dataclass(slots=True)
class Matches:
    """One view, and the topics that it matches."""

    regexp: Any
    may_describe: Callable[[str], bool]
    #: Names of topics that were not looked at yet.
    rest: Iterator[str]
    #: Names that changed since, and were not looked at again yet.
    late: dict[str, None] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    #: Names that the pattern matches, and that the principal may not describe.
    hidden: set[str] = field(default_factory=set)
    #: A hash of `names`, whatever their order: so two sets of many names are compared at once.
    fingerprint: int = 0
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
            name not in INTERNAL_TOPICS
            and topics.named(name) is not None
            and self.regexp.fullmatch(name.encode()) is not None
        )
        return self._set(name, is_matched=is_matched)

    def ask_again(self, name: str) -> bool:
        """Ask for the right on a name again; return whether the principal has another one now."""
        was_matched = name in self.names
        is_matched = was_matched or name in self.hidden
        self._set(name, is_matched=is_matched)
        return was_matched != (name in self.names)

    def _set(self, name: str, *, is_matched: bool) -> bool:
        """Note whether the pattern matches a name; return whether it is seen, or was so before."""
        was_seen = name in self.names
        is_seen = is_matched and self.may_describe(name)
        if was_seen != is_seen:
            (self.names.add if is_seen else self.names.discard)(name)
            self.fingerprint ^= hash_of(name)
        (self.hidden.add if is_matched and not is_seen else self.hidden.discard)(name)
        return was_seen or is_seen


class Subscriptions:
    """The names and views that groups subscribe to, and what they are in the present image."""

    def __init__(
        self,
        config: GroupsConfig,
        topics: Topics,
        may_describe: MayDescribe = all_may_describe,
    ) -> None:
        self._config = config
        self.topics = topics
        self._may_describe = may_describe
        self._views: dict[View, Matches] = {}
        #: Those that were not matched against all names yet.
        self._unmatched: dict[View, Matches] = {}
        #: Those of which the rights are asked again, with the names that are left; None: all.
        self._doubted: dict[View, Iterator[str] | None] = {}
        #: By topic name: the groups that name it. Dicts keep their order, sets do not.
        self._named: dict[str, dict[str, None]] = {}

    def check_room(self, view: View) -> None:
        """Raise OverloadedError for a pattern that would be one too many."""
        most = self._config.patterns_max
        if view.pattern and view not in self._views and len(self._views) >= most:
            raise OverloadedError(
                f"the groups of this coordinator have {most} different patterns, the most that it "
                "takes: name topics, or use a pattern that members have already"
            )

    def follow(self, group_id: str, names: Iterable[str], view: View | None) -> None:
        """A member of the group begins to subscribe. The pattern must have been compiled once."""
        for name in names:
            self._named.setdefault(name, {})[group_id] = None
        if view is None:
            return
        matches = self._views.get(view)
        if matches is None:
            may_describe = partial(self._may_describe, view.principal)
            matches = Matches(compiled(view.pattern), may_describe, self.topics.names())
            self._views[view] = self._unmatched[view] = matches
        matches.group_ids[group_id] = None

    def unfollow(self, group_id: str, names: Iterable[str], view: View | None) -> None:
        """No member of the group subscribes to these any more."""
        for name in names:
            groups = self._named.get(name, {})
            groups.pop(group_id, None)
            if not groups:
                self._named.pop(name, None)
        matches = None if view is None else self._views.get(view)
        if view is not None and matches is not None:
            matches.group_ids.pop(group_id, None)
            if not matches.group_ids:
                del self._views[view]
                self._unmatched.pop(view, None)
                self._doubted.pop(view, None)

    def is_known(self, view: View) -> bool:
        """Return whether every name was matched against the pattern."""
        return view not in self._unmatched

    def is_too_wide(self, view: View) -> bool:
        """Return whether a pattern matches more topics than a subscription may have."""
        return len(self.matched(view)) > self._config.subscription_topics_max

    def matched(self, view: View | None) -> Set[str]:
        """Return the names of the topics that a pattern matches, as far as it is known."""
        matches = None if view is None else self._views.get(view)
        return frozenset() if matches is None else matches.names

    def fingerprint(self, view: View) -> int:
        """Return a hash of `matched`. It does not depend on the order of the names."""
        matches = self._views.get(view)
        return 0 if matches is None else matches.fingerprint

    def topics_of(self, names: Iterable[str]) -> list[Topic]:
        """Return the topics of these names that there are now, by name."""
        found = (self.topics.named(name) for name in sorted(names))
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
        for view, matches in self._views.items():
            room -= matches.regexp.programsize * len(listed)
            if room < 0:
                matches.late |= dict.fromkeys(listed)
                self._unmatched[view] = matches
            elif [name for name in listed if matches.look_at(name, topics)]:
                affected |= matches.group_ids
        return list(affected)

    @property
    def has_unmatched(self) -> bool:
        """Whether some pattern was not matched against all names yet, or rights are in doubt."""
        return bool(self._unmatched or self._doubted)

    def doubt_rights(self) -> None:
        """Rights may have been given or withdrawn: `match_some` asks for all of them again."""
        self._doubted |= dict.fromkeys(self._views)

    def match_some(self) -> list[str]:
        """Match a part of the names; return the groups of the patterns that are known now.

        If time is left, ask for rights again; return the groups that see other topics now, too.
        """
        names, work = self._config.names_per_step, WORK_PER_STEP
        known: dict[str, None] = {}
        for view, matches in [*self._unmatched.items()]:
            most = min(names, max(work // matches.regexp.programsize, 1))
            part = matches.part(most)
            for name in part:
                matches.look_at(name, self.topics)
            names -= len(part)
            work -= len(part) * matches.regexp.programsize
            if len(part) < most:
                del self._unmatched[view]
                known |= matches.group_ids
            if names <= 0 or work <= 0:
                break
        return list(known | self._ask_some_again(names))

    def _ask_some_again(self, most: int) -> dict[str, None]:
        affected: dict[str, None] = {}
        while self._doubted and most > 0:
            view, rest = next(iter(self._doubted.items()))
            matches = self._views[view]
            if rest is None:
                rest = self._doubted[view] = iter([*matches.names, *matches.hidden])
            part = list(islice(rest, most))
            if len(part) < most:
                del self._doubted[view]
            if [name for name in part if matches.ask_again(name)]:
                affected |= matches.group_ids
            most -= max(len(part), 1)
        return affected
