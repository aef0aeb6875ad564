"""`make kafka-tools KAFKA=/path/to/kafka`: Kafka's DumpLogSegments reads every file that we write.

KAFKA is a release of Apache Kafka, unpacked: a folder with `libs/*.jar` (or `lib/*.jar`). The logs
are written anew: each codec, and all in one log; not compacted, compacted once, and often.
`--directory` names further log directories of replicas, such as those of a broker that has stopped,
which are read too; those of `__consumer_offsets` with the decoder of offsets.

It fails if the tool fails, reports a mismatch, or counts other batches and records than Quorate.
"Non-consecutive offsets" are what compaction leaves in a log, and are allowed only there.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.kafka.logs import CODECS, Written, write

TOOL = "org.apache.kafka.tools.DumpLogSegments"
ENDINGS = (".log", ".index", ".timeindex")
#: What the tool says of a file that it finds wrong.
FAULT = re.compile(
    r"mismatch|out of order|should be rebuilt|unable|invalid|corrupt|exception|bytes truncated"
    r"|isvalid: false|does not match|not found",
    re.IGNORECASE,
)
GAPS = "Non-consecutive offsets"
BATCH = re.compile(r"^baseOffset: \d+ lastOffset: \d+ count: (\d+) .*isvalid: true")
RECORD = re.compile(r"^\| offset: \d+ ")


def files_of(directory: Path) -> list[Path]:
    """Return the files of a log directory that the tool reads."""
    return sorted(file for file in directory.iterdir() if file.suffix in ENDINGS)


def dump(kafka: Path, files: Sequence[Path], *options: str) -> str:
    """Run the tool once over some files, and return what it prints."""
    jars = next((kafka / name for name in ("libs", "lib") if (kafka / name).is_dir()), None)
    if jars is None:
        raise SystemExit(f"{kafka} has no folder libs or lib: name an unpacked release of Kafka")
    java = ["java", "-Xmx512M", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", TOOL]
    done = subprocess.run(
        [*java, "--deep-iteration", *options, "--files", ",".join(map(str, files))],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the tool ended with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


def faults_in(text: str, *, may_have_gaps: bool) -> list[str]:
    """Return the lines of the tool's output that report something wrong."""
    lines = [line for line in text.splitlines() if not RECORD.match(line)]
    wrong = [line for line in lines if FAULT.search(line)]
    if not may_have_gaps:
        wrong += [line for line in lines if line.startswith(GAPS)]
    return wrong


def counts_in(text: str) -> tuple[int, int, int]:
    """Return the batches of the tool's output, the records that they say, and those printed."""
    found = [BATCH.match(line) for line in text.splitlines()]
    counts = [int(match[1]) for match in found if match]
    printed = sum(bool(RECORD.match(line)) for line in text.splitlines())
    return len(counts), sum(counts), printed


async def written(folder: str, logs: int) -> list[Written]:
    """Write the logs: each codec and all in one, with no pass of compaction, one, and three."""
    kinds = [(codec, passes) for codec in (*CODECS, None) for passes in (0, 1, 3)]
    return [
        await write(
            folder, seed, codec=kinds[seed % len(kinds)][0], passes=kinds[seed % len(kinds)][1]
        )
        for seed in range(logs)
    ]


def main() -> int:
    """Write the logs, dump them, compare, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kafka", type=Path)
    parser.add_argument("--logs", type=int, default=18)
    parser.add_argument("--directory", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        logs = asyncio.run(written(folder, options.logs))
        for is_compacted in (False, True):
            some = [log for log in logs if log.is_compacted == is_compacted]
            files = [file for log in some for file in files_of(Path(log.directory))]
            text = dump(options.kafka, files)
            wrong += faults_in(text, may_have_gaps=is_compacted)
            batches, records = sum(log.batches for log in some), sum(log.records for log in some)
            if counts_in(text) != (batches, records, records):
                wrong.append(f"Kafka counts {counts_in(text)}, not {(batches, records, records)}")
            seen.update(file.suffix for file in files)
            seen.update(batches=batches, records=records, gaps=sum(log.gaps for log in some))
            seen.update(empty=sum(log.empty_batches for log in some))
            seen.update(horizons=sum(log.delete_horizons for log in some))
    for directory in options.directory:
        files = files_of(directory)
        is_of_offsets = directory.name.startswith("__consumer_offsets-")
        text = dump(options.kafka, files, *(["--offsets-decoder"] if is_of_offsets else []))
        wrong += faults_in(text, may_have_gaps=(directory / "compacted").exists())
        seen.update(file.suffix for file in files)
        batches, records, printed = counts_in(text)
        seen.update(batches=batches, records=records, decoded=printed if is_of_offsets else 0)
    print(", ".join(f"{count} {name}" for name, count in sorted(seen.items())))
    print("\n".join(wrong) or "Kafka's tool reports nothing wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
