"""`make compat-ci`: the cases of outside suites that CI runs, against Quorate alone.

What passed when the results were committed must still pass. The cases need nothing but packages of
PyPI, or a program that is told if it is missing: then its cases are skipped. They take less than
two minutes together.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass

from tests.compat.results import QUORATE, load
from tests.compat.run import run_on


@dataclass(frozen=True, slots=True)
class Checked:
    """Cases of one suite. One name stands for a case with all its parameters."""

    suite: str
    names: tuple[str, ...]
    #: What must be in PATH.
    program: str | None = None

    def cases(self) -> dict[str, list[str]]:
        """Return, for each name, the cases that passed when the result was committed."""
        result = load(self.suite, QUORATE)
        passed = sorted(result.named("passed")) if result else []
        return {name: [one for one in passed if one.split("[")[0] == name] for name in self.names}


#: Cases with limits of a few seconds are not here: a busy machine does not keep them.
CHECKED = (
    Checked(
        "kafka-python",
        (
            "test_admin_integration::test_create_delete_topics",
            "test_admin_integration::test_create_partitions",
            "test_admin_integration::test_delete_groups",
            "test_admin_integration::test_delete_groups_with_errors",
            "test_admin_integration::test_delete_records_with_errors",
            "test_admin_integration::test_describe_configs_broker_resource_returns_configs",
            "test_admin_integration::test_describe_configs_invalid_broker_id_raises",
            "test_admin_integration::test_describe_configs_mixed_resources_returns_configs",
            "test_admin_integration::test_describe_configs_topic_resource_returns_configs",
            "test_admin_integration::test_describe_group_exists",
            "test_admin_integration::test_describe_log_dirs",
            "test_admin_integration::test_describe_metadata_quorum",
            "test_admin_integration::test_describe_topic_partitions",
            "test_admin_integration::test_describe_topic_partitions_pagination",
            "test_admin_integration::test_elect_leaders",
            "test_admin_integration::test_list_config_resources",
            "test_admin_integration::test_list_partition_offsets",
            "test_admin_integration::test_list_partition_reassignments",
            "test_consumer_integration::test_kafka_consumer",
            "test_consumer_integration::test_kafka_consumer__offset_commit_resume",
            "test_consumer_integration::test_kafka_consumer_offsets_for_time",
            "test_consumer_integration::test_kafka_consumer_offsets_search_many_partitions",
            "test_consumer_integration::test_kafka_version_infer",
            "test_consumer_integration::test_paused",
            "test_producer_integration::test_end_to_end",
            "test_producer_integration::test_idempotent_producer_high_throughput",
            "test_producer_integration::test_idempotent_producer_max_in_flight",
        ),
    ),
    Checked(
        "clients",
        (
            "kcat: list the cluster",
            "kcat: produce and consume",
            "kcat: consume in a group",
            "kcat: offset of a time",
        ),
        program="kcat",
    ),
)


def idle() -> list[str]:
    """Return the names of cases that did not pass when the results were committed."""
    return [name for one in CHECKED for name, cases in one.cases().items() if not cases]


def _broken(checked: Checked) -> list[str]:
    """Run the cases of a suite. Return those that no longer pass, neither at a second try.

    Clients have races of their own. A consumer of kafka-python that subscribes while its bootstrap
    is under way may never ask for its topics (3.0.12): nothing that the broker does brings it on.
    """
    wanted = [case for cases in checked.cases().values() for case in cases]
    broken = sorted(set(wanted) - run_on(checked.suite, QUORATE, wanted).named("passed"))
    if not broken:
        return []
    print(f"{checked.suite}: a second try of {', '.join(broken)}", flush=True)
    return sorted(set(broken) - run_on(checked.suite, QUORATE, broken).named("passed"))


def main() -> int:
    """Return 1 if a case that passed does not."""
    started = time.monotonic()
    broken = []
    for checked in CHECKED:
        if checked.program and shutil.which(checked.program) is None:
            count = len(checked.names)
            print(f"SKIPPED: {checked.program} is not installed: {count} cases do not run")
            continue
        broken += [f"{checked.suite}: {name}" for name in _broken(checked)]
    for name in broken:
        print(f"NO LONGER PASSES: {name}")
    print(f"compat-ci: {len(broken)} cases no longer pass, in {time.monotonic() - started:.0f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
