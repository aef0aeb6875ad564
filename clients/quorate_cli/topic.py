"""`quorate topic`: create, list, describe, alter, delete, produce, consume."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from quorate import Consumer, Producer, Record, TopicDescription
from quorate.errors import QuorateError
from quorate_cli.session import (
    DEFAULT_BOOTSTRAP,
    SAID_NO,
    Bootstrap,
    Output,
    Timeout,
    admin_at,
    check_output,
    milliseconds,
    print_json,
    print_table,
    run,
    stderr,
    usage_error,
    warn,
)

app = typer.Typer(no_args_is_help=True, help="Create, look at, write and read topics.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The topic.")]
Configs = Annotated[
    list[str] | None,
    typer.Option("--config", "-c", metavar="NAME=VALUE", help="A setting; may be repeated."),
]


def parse_configs(configs: list[str] | None) -> dict[str, str]:
    """Return name=value pairs as a dict; wrong usage if one has no "="."""
    parsed = {}
    for one in configs or []:
        name, equals, value = one.partition("=")
        if not equals or not name:
            usage_error(f"--config takes NAME=VALUE, not {one!r}")
        parsed[name] = value
    return parsed


def describe_json(topic: TopicDescription) -> dict[str, Any]:
    """Return a topic in the shape that API.md fixes."""
    return {
        "name": topic.name,
        "topic_id": topic.topic_id,
        "partitions": [
            {
                "partition": one.partition,
                "leader": one.leader,
                "leader_epoch": one.leader_epoch,
                "replicas": list(one.replicas),
                "isr": list(one.isr),
                "elr": list(one.elr),
            }
            for one in topic.partitions
        ],
        "configs": dict(topic.configs),
    }


@app.command()
def create(
    name: Name,
    partitions: Annotated[int, typer.Option("--partitions", "-p", help="How many.")] = 1,
    replication_factor: Annotated[
        int, typer.Option("--replication-factor", "-r", help="-1: the cluster's default.")
    ] = -1,
    config: Configs = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Create a topic."""
    as_json = check_output(output)
    configs = parse_configs(config)

    async def main() -> TopicDescription:
        async with admin_at(bootstrap, timeout) as admin:
            return await admin.create_topic(name, partitions, replication_factor, configs)

    topic = run(main, timeout=timeout)
    warn(topic.warnings)
    if as_json:
        print_json(describe_json(topic))
    else:
        _print_topic(topic)


@app.command("list")
def list_topics(
    internal: Annotated[bool, typer.Option("--internal", help="Internal ones too.")] = False,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """List the topics."""
    as_json = check_output(output)

    async def main() -> list[str]:
        async with admin_at(bootstrap, timeout) as admin:
            return await admin.list_topics(internal=internal)

    names = run(main, timeout=timeout)
    if as_json:
        print_json(names)
    else:
        for name in names:
            sys.stdout.write(name + "\n")


@app.command()
def describe(
    name: Name,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Show a topic's partitions: leader, replicas, ISR."""
    as_json = check_output(output)

    async def main() -> TopicDescription:
        async with admin_at(bootstrap, timeout) as admin:
            return (await admin.describe_topics([name]))[name]

    topic = run(main, timeout=timeout)
    if as_json:
        print_json(describe_json(topic))
    else:
        _print_topic(topic)


@app.command()
def alter(
    name: Name,
    config: Configs = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="NAME", help="Back to the default.")
    ] = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Change a topic's settings."""
    as_json = check_output(output)
    configs = parse_configs(config)
    if not configs and not remove:
        usage_error("alter takes --config NAME=VALUE or --remove NAME, at least one")

    async def main() -> None:
        async with admin_at(bootstrap, timeout) as admin:
            warn(await admin.alter_configs(name, set=configs, remove=remove or ()))

    run(main, timeout=timeout)
    if as_json:
        print_json({"altered": name})


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The topics.")],
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Delete topics and all their records."""
    as_json = check_output(output)

    async def main() -> None:
        async with admin_at(bootstrap, timeout) as admin:
            await admin.delete_topics(names)

    run(main, timeout=timeout)
    if as_json:
        print_json({"deleted": names})


@app.command()
def produce(
    name: Name,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read this file, not standard input.")
    ] = None,
    key_separator: Annotated[
        str | None, typer.Option("--key-separator", help="Splits a line into key and value.")
    ] = None,
    acks: Annotated[str, typer.Option("--acks", help="all, 1 or 0.")] = "all",
    compression: Annotated[str, typer.Option("--compression", help="none or zstd.")] = "none",
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Write each line of standard input as a record; tell how many were acknowledged."""
    as_json = check_output(output)
    if acks not in ("all", "1", "0"):
        usage_error(f"--acks must be all, 1 or 0, not {acks!r}")

    async def main() -> tuple[int, int]:
        await _must_exist(name, bootstrap, timeout)
        source = file.open("rb") if file is not None else sys.stdin.buffer
        async with Producer(
            bootstrap_servers=bootstrap,
            acks=acks if acks == "all" else int(acks),
            compression_type=compression,
            request_timeout_ms=milliseconds(timeout),
            delivery_timeout_ms=milliseconds(timeout),
        ) as producer:
            return await _produce_lines(producer, name, source, key_separator)

    acked, failed = run(main, timeout=timeout, bounded=False)
    if as_json:
        print_json({"acked": acked, "failed": failed})
    else:
        sys.stdout.write(f"{acked} records acknowledged, {failed} failed\n")
    if failed:
        raise typer.Exit(SAID_NO)


async def _must_exist(name: str, bootstrap: str, timeout: float) -> None:
    """UnknownTopicError at once: producers and consumers wait a while for a topic to be made."""
    async with admin_at(bootstrap, timeout) as admin:
        await admin.describe_topics([name])


async def _produce_lines(
    producer: Producer, name: str, source: BinaryIO, key_separator: str | None
) -> tuple[int, int]:
    deliveries = []
    acked = failed = 0
    loop = asyncio.get_running_loop()
    lines = _lines(source)
    while chunk := await loop.run_in_executor(None, _next_lines, lines):
        for line in chunk:
            key, value = _split_key(line, key_separator)
            deliveries.append(await producer.send(name, value, key))
        if len(deliveries) >= 20_000:
            acked, failed = await _settle(deliveries, acked, failed)
    return await _settle(deliveries, acked, failed)


async def _settle(deliveries: list[Any], acked: int, failed: int) -> tuple[int, int]:
    for delivery in deliveries:
        try:
            await delivery
            acked += 1
        except QuorateError as error:
            if not failed:
                stderr.print(f"quorate: {error}", style="red", markup=False)
            failed += 1
    deliveries.clear()
    return acked, failed


def _lines(source: BinaryIO) -> Iterator[bytes]:
    for line in source:
        yield line.rstrip(b"\r\n")


def _next_lines(lines: Iterator[bytes]) -> list[bytes]:
    """Return what can be read without waiting for more than the first line."""
    chunk = []
    for line in lines:
        chunk.append(line)
        if len(chunk) >= (1000 if not sys.stdin.isatty() else 1):
            break
    return chunk


def _split_key(line: bytes, separator: str | None) -> tuple[bytes | None, bytes]:
    if separator is None:
        return None, line
    key, found, value = line.partition(separator.encode())
    return (key, value) if found else (None, line)


@app.command()
def consume(
    name: Name,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start at the first record held.")
    ] = False,
    group: Annotated[str | None, typer.Option("--group", help="Not there yet.")] = None,
    count: Annotated[int | None, typer.Option("--count", help="Stop after so many.")] = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop at the end as it is at the start.")
    ] = False,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Print a topic's records, a line each; without --count or --until-end, for good."""
    as_json = check_output(output)

    async def main() -> None:
        await _must_exist(name, bootstrap, timeout)
        consumer = Consumer(
            name,
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest" if from_beginning else "latest",
        )
        async with asyncio.timeout(timeout):
            await consumer.start()
        try:
            written = 0
            async for record in _records(consumer, until_end=until_end):
                _write(record, as_json=as_json)
                written += 1
                if count is not None and written >= count:
                    break
        finally:
            await consumer.stop()

    run(main, timeout=timeout, bounded=False)


async def _records(consumer: Consumer, *, until_end: bool) -> AsyncIterator[Record[Any, Any]]:
    if not until_end:
        async for record in consumer:
            yield record
        return
    ends = await consumer.end_offsets(consumer.assignment())
    open_partitions = set()
    for partition, end in sorted(ends.items()):
        if await consumer.position(partition) < end:
            open_partitions.add(partition)
    while open_partitions:
        for partition, found in (await consumer.getmany(timeout_ms=1000)).items():
            for record in found:
                if record.offset < ends[partition]:
                    yield record
        for partition in sorted(open_partitions):
            if await consumer.position(partition) >= ends[partition]:
                open_partitions.discard(partition)


def _write(record: Record[Any, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "partition": record.partition,
                "offset": record.offset,
                "timestamp_ms": record.timestamp_ms,
                "key": _text(record.key),
                "value": _text(record.value),
                "headers": [[name, _text(value)] for name, value in record.headers],
            }
        )
        return
    key = f"{_text(record.key)}\t" if record.key is not None else ""
    sys.stdout.write(f"{record.partition}\t{record.offset}\t{key}{_text(record.value)}\n")
    sys.stdout.flush()


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")


def _print_topic(topic: TopicDescription) -> None:
    rows = [
        (
            one.partition,
            one.leader if one.leader >= 0 else "none",
            one.leader_epoch,
            " ".join(map(str, one.replicas)),
            " ".join(map(str, one.isr)),
            " ".join(map(str, one.elr)),
        )
        for one in topic.partitions
    ]
    print_table(
        ("partition", "leader", "leader epoch", "replicas", "ISR", "ELR"),
        rows,
        title=f"{topic.name}  ({topic.topic_id})",
    )
    for name, value in sorted(topic.configs.items()):
        sys.stdout.write(f"{name} = {value}\n")
