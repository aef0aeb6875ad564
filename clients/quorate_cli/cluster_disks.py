"""`quorate cluster disks`: the log directories of all brokers, and the sizes of the topics."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from quorate_cli.output import print_json, print_table
from quorate_cli.session import Session, in_session


@in_session
def disks(session: Session) -> None:
    """Show each broker's log directories with the bytes of their logs, and the topics by size."""
    found = session.ask(lambda admin: admin.describe_log_dirs())
    if session.as_json:
        print_json([{**asdict(one), "size": one.size} for one in found])
        return
    total = sum(one.size for one in found)
    print_table(
        ("broker", "directory", "logs", "share", "free", "replicas", "state"),
        [
            (
                one.broker_id,
                one.path,
                readable(one.size),
                share(one.size, total),
                readable(one.free_bytes) if one.free_bytes >= 0 else "",
                len(one.replicas),
                one.failure or "in use",
            )
            for one in found
        ],
    )
    sizes: Counter[str] = Counter()
    for one in found:
        for replica in one.replicas:
            sizes[replica.topic] += replica.size
    print_table(
        ("topic", "all replicas", "share"),
        [(name, readable(size), share(size, total)) for name, size in sizes.most_common()],
    )


def share(part: int, whole: int) -> str:
    """Return a share as text, in percent.

    >>> share(1, 8), share(0, 0)
    ('12.5 %', '0.0 %')
    """
    return f"{100 * part / whole if whole else 0:.1f} %"


def readable(size: int) -> str:
    """Return a number of bytes as text, with a unit.

    >>> readable(900), readable(1_500_000), readable(3 << 30)
    ('900 B', '1.4 MiB', '3.0 GiB')
    """
    scaled = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if scaled < 1024:
            return f"{size} B" if unit == "B" else f"{scaled:.1f} {unit}"
        scaled /= 1024
    return f"{scaled:.1f} TiB"
