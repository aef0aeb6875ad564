"""`quorate top`: rates, lag, leaders and in-sync replicas of a cluster, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Final

import typer

from quorate import Admin, GroupListing, LogDirDescription
from quorate.errors import AuthorizationError, QuorateError
from quorate_cli.cluster_rates import GroupSample, Sample, View, logs_of, view
from quorate_cli.output import console, print_json, say
from quorate_cli.session import TIMEOUT_SLACK_S, Session, in_session, run
from quorate_cli.top_screen import document, plain, screen

INTERVAL_MAX_S: Final = 3600.0
#: The committed offsets of so many groups are asked for, so many at a time.
GROUPS_MAX: Final = 100
GROUPS_AT_A_TIME: Final = 8
#: The groups must answer in this share of --timeout: without them the rest is still shown.
GROUPS_SHARE: Final = 0.5


@in_session
def top(
    session: Session,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", "-i", min=0.1, max=INTERVAL_MAX_S, help="Seconds between two looks."
        ),
    ] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look twice, print the rates in between, and end.")
    ] = False,
    internal: Annotated[bool, typer.Option("--internal", help="Show internal topics.")] = False,
) -> None:
    """Show what happens in the cluster: rates of topics, lag of groups, leaders and ISR of brokers.

    On a terminal this is a screen; q or Ctrl-C ends it. In a pipe it is plain text, or with -o json
    a document on each line.

    Bytes are those that leaders add to their logs, compressed as they lie there. A group's lag is
    the number of records that it has not committed.
    """
    show: Callable[[View], None] = (
        (lambda shown: print_json(document(shown)))
        if session.as_json
        else (lambda shown: _print(plain(shown, internal=internal)))
    )

    async def main() -> None:
        async with session.admin() as admin:
            views = _views(admin, session.timeout, interval)
            if once:
                await anext(views)
                show(_or_raise(await anext(views)))
                return
            terminal = console()
            is_screen = (
                not session.as_json and terminal.is_terminal and not terminal.is_dumb_terminal
            )
            # Ctrl-C is the usual end
            with contextlib.suppress(asyncio.CancelledError):
                if is_screen:
                    await _on_screen(views, interval, internal=internal)
                else:
                    await _in_pipe(views, show)

    run(main, timeout=session.timeout, bounded=False)


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _or_raise(found: View | QuorateError | TimeoutError) -> View:
    if isinstance(found, View):
        return found
    raise found


async def _in_pipe(
    views: AsyncIterator[View | QuorateError | TimeoutError], show: Callable[[View], None]
) -> None:
    # the first has no rates
    await anext(views)
    async for found in views:
        if isinstance(found, View):
            show(found)
        else:
            say(_said(found))


async def _on_screen(
    views: AsyncIterator[View | QuorateError | TimeoutError], interval: float, *, internal: bool
) -> None:
    from rich.live import Live

    shown = _or_raise(await anext(views))
    quit_asked = asyncio.Event()
    terminal = console()

    async def refresh() -> None:
        nonlocal shown
        usual = f"every {interval:g} s; q ends"
        status = usual
        while True:
            drawn = screen(shown, internal=internal, lines=terminal.height, status=status)
            live.update(drawn, refresh=True)
            found = await anext(views)
            if isinstance(found, View):
                shown, status = found, usual
            else:
                status = f"{_said(found)}; the numbers are old; q ends"

    with (
        _keys(quit_asked),
        Live(console=terminal, screen=True, auto_refresh=False, transient=True) as live,
    ):
        refreshing = asyncio.create_task(refresh())
        asked = asyncio.create_task(quit_asked.wait())
        try:
            await asyncio.wait({refreshing, asked}, return_when=asyncio.FIRST_COMPLETED)
            if refreshing.done():
                refreshing.result()
        finally:
            for task in (refreshing, asked):
                task.cancel()
            await asyncio.gather(refreshing, asked, return_exceptions=True)


def _said(error: QuorateError | TimeoutError) -> str:
    return str(error) or "no answer in time"


@contextlib.contextmanager
def _keys(quit_asked: asyncio.Event) -> Iterator[None]:
    """Take q from the keyboard without Enter, and SIGTERM; leave the terminal as it was."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, quit_asked.set)
    try:
        if not sys.stdin.isatty():
            yield
            return
        import termios
        import tty

        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)

        def read() -> None:
            pressed = os.read(keyboard, 64)
            if not pressed:
                loop.remove_reader(keyboard)
            if b"q" in pressed.lower():
                quit_asked.set()

        tty.setcbreak(keyboard)
        loop.add_reader(keyboard, read)
        try:
            yield
        finally:
            loop.remove_reader(keyboard)
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _views(
    admin: Admin, timeout: float, interval: float
) -> AsyncIterator[View | QuorateError | TimeoutError]:
    """Yield a view at once, and then one after each interval; an error if there was no answer.

    Raises the error of the first look.
    """
    before: Sample | None = None
    while True:
        try:
            async with asyncio.timeout(timeout + TIMEOUT_SLACK_S):
                now = await _sample(admin, timeout)
        except (QuorateError, TimeoutError) as error:
            if before is None:
                raise
            yield error
        else:
            yield view(before, now)
            before = now
        await asyncio.sleep(interval)


async def _sample(admin: Admin, timeout: float) -> Sample:
    missing: list[str] = []
    cluster, topics, log_dirs, groups = await asyncio.gather(
        admin.describe_cluster(),
        admin.describe_topics(),
        _log_dirs(admin, missing),
        _groups(admin, timeout * GROUPS_SHARE, missing),
    )
    at_s = asyncio.get_running_loop().time()
    logs, disks = logs_of(log_dirs)
    return Sample(at_s, cluster, topics, logs, disks, groups, missing)


async def _log_dirs(admin: Admin, missing: list[str]) -> list[LogDirDescription]:
    try:
        found = await admin.describe_log_dirs()
    except AuthorizationError as error:
        missing.append(f"no rates: {error}")
        return []
    missing += [f"broker {one.broker_id}: {one.failure}" for one in found if one.failure]
    return found


async def _groups(admin: Admin, timeout: float, missing: list[str]) -> list[GroupSample]:
    at_a_time = asyncio.Semaphore(GROUPS_AT_A_TIME)

    async def ask(one: GroupListing) -> GroupSample:
        async with at_a_time:
            offsets = await admin.list_group_offsets(one.group_id)
        committed = {key: offset.offset for key, offset in offsets.items()}
        return GroupSample(one.group_id, one.state, one.members, committed)

    try:
        async with asyncio.timeout(timeout):
            listed = await admin.list_groups()
            if len(listed) > GROUPS_MAX:
                missing.append(f"{GROUPS_MAX} of {len(listed)} groups are shown")
            return await asyncio.gather(*map(ask, listed[:GROUPS_MAX]))
    except TimeoutError:
        missing.append(f"the groups gave no answer within {timeout:g} s")
    except QuorateError as error:
        missing.append(f"no groups: {error}")
    return []
