"""`quorate cluster disks`: the log directories of all brokers, and the sizes of the topics."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from decimal import Decimal
from typing import Final

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


#: The units of sizes that a user may write, in bytes.
UNITS: Final = {
    **{"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12},
    **{"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40},
}
SIZE_MAX: Final = (1 << 63) - 1


def byte_size(text: str) -> int | None:
    """Return a size that a user wrote, in bytes; None if it is none.

    >>> byte_size("10MiB"), byte_size("1.5 kB"), byte_size("70"), byte_size("-1"), byte_size("1Q")
    (10485760, 1500, 70, None, None)
    """
    found = re.fullmatch(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", text.strip(), re.ASCII)
    unit = None if found is None else UNITS.get(found[2].lower())
    if found is None or unit is None:
        return None
    size = int(Decimal(found[1]) * unit)
    return size if size <= SIZE_MAX else None


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
