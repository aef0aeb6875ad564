"""`python -m bench.compaction`: the speed and the memory of one pass of compaction.

It writes a log of keyed records, lets the worker process of a broker compact it, and prints how
fast that was, what it cost, and what was left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import shutil
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from quorate.record import compression
from quorate.record.batch import BatchBuilder, parse_header
from quorate_broker.compaction.job import Cleaned, Done, Failed, Job
from quorate_broker.compaction.offset_map import HASH_BYTES
from quorate_broker.compaction.runner import ProcessRunner
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.real_disk import RealDisk
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.programs import RealPrograms

RECORD_BYTES = 100
BATCH_RECORDS = 160
SEGMENT_BYTES = 64 << 20


async def write(log: Log, records: int, keys: int, codec: int) -> None:
    """Append records of about RECORD_BYTES, whose keys come in turn with a stride."""
    value = b"v" * (RECORD_BYTES - 18)
    number = 0
    while number < records:
        builder = BatchBuilder(codec=codec)
        for _ in range(min(BATCH_RECORDS, records - number)):
            key = number * 7919 % keys
            builder.append(1_700_000_000_000 + number, b"key-%08d" % key, value)
            number += 1
        batch = builder.build(base_offset=log.log_end_offset, leader_epoch=1)
        await log.append([(parse_header(batch), (batch,))])
    await log.roll()


async def compact(log: Log) -> Done:
    """Compact all closed segments of a log in one pass."""
    closed = (await log.segments())[:-1]
    defaults = BrokerConfig(node_id=0, listeners=("localhost:0",), log_dirs=("/none",))
    job = Job(
        directory=log.compaction.directory,
        segments=tuple((one.base_offset, one.end_offset, one.size) for one in closed),
        first_dirty=0,
        now_ms=1_800_000_000_000,
        delete_retention_ms=1000,
        may_drop_tombstones=True,
        segment_bytes=1 << 30,
        index_interval_bytes=log.compaction.index_interval_bytes,
        epochs=tuple(log.epochs.entries),
        producers=(),
        map_bytes=defaults.log_cleaner_dedupe_buffer_size,
        bytes_per_second=-1,
        salt=bytes(HASH_BYTES).hex(),
    )
    async with aclosing(ProcessRunner(RealPrograms()).run(job)) as reports:
        async for report in reports:
            if isinstance(report, Cleaned):
                assert await log.compaction.replace_segments(report.new, log.truncations)
            elif isinstance(report, Failed):
                raise SystemExit(report.reason)
            else:
                return report
    raise SystemExit("no result")


async def measure(folder: str, records: int, keys: int, codec: str) -> dict[str, object]:
    disk = RealDisk()
    path = f"{folder}/{codec}"
    log = await Log.open(disk, path, LogConfig(segment_bytes=SEGMENT_BYTES))
    await write(log, records, keys, compression.codec_named(codec))
    before = log.size
    began = time.perf_counter()
    done = await compact(log)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    after = log.size
    await log.close(clean=True)
    disk.close()
    return {
        "codec": codec,
        "records": records,
        "keys": keys,
        "log_mb": round(before / 1e6, 1),
        "left_mb": round(after / 1e6, 1),
        "left_records": done.records - done.dropped,
        "seconds": round(seconds, 2),
        "records_per_second": round(records / seconds),
        "raw_mb_per_second": round(records * RECORD_BYTES / seconds / 1e6, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_rss_mb": round(used.ru_maxrss / 1024, 1),
    }


def main() -> None:
    """Measure the codecs that were asked for, each in a new log."""
    parser = argparse.ArgumentParser(prog="python -m bench.compaction", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--codec", default="none", choices=sorted(compression.CODECS))
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="quorate-compaction-", dir=asked.folder)
    try:
        found = asyncio.run(measure(folder, asked.records, asked.keys, asked.codec))
    finally:
        shutil.rmtree(folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
