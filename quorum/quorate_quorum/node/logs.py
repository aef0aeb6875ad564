"""The log of a node: lines of text on standard error, which never stop or slow the node.

    a log call -> processors -> LineWriter.write (a bounded queue) -> its thread -> the file

The event loop only appends to the queue. The reader of standard error may be slow, stop reading or
exit (`quorate-broker 2>&1 | logger`). Then the writer drops and counts lines, and the node goes on.
The count is written as soon as lines can be written again.

Code that waits for a state to end ("no controller answers") logs the state again and again. Such a
log call has `repeats=True`. The same line then appears only once a minute, with the number of times
that it was left out.
"""

from __future__ import annotations

import collections
import json
import logging
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TextIO, cast

import structlog

#: The most characters that wait for a slow reader. Further lines are dropped.
QUEUE_CHARS_MAX: Final = 4 << 20
#: The most characters of one line. A longer line is cut.
LINE_CHARS_MAX: Final = 64 << 10
#: The pause of the writing thread after each write. Lines of this time are written together: to
#: wake the thread for each of a thousand lines costs more than to make them.
PAUSE_S: Final = 0.01
#: The interval at which a line with `repeats=True` appears.
REPEAT_INTERVAL_S: Final = 60.0
#: The most repeated lines that are remembered. The oldest is forgotten first.
REPEATS_MAX: Final = 1_000

Event = MutableMapping[str, Any]


class LineWriter:
    """A text stream whose `write` returns at once and never raises: a thread does the writing.

    The writer works on blocking and non-blocking descriptors. It does not change a descriptor's
    flags, because an inherited descriptor is shared with the parent process.
    """

    def __init__(self, stream: TextIO, *, chars_max: int = QUEUE_CHARS_MAX) -> None:
        self._stream = stream
        self._chars_max = chars_max
        self._lines: collections.deque[str] = collections.deque()
        self._chars = 0
        self._is_writing = False
        # The lock is reentrant: during `write` in a thread, a finalizer may run in that thread, and
        # log.
        self._changed = threading.Condition(threading.RLock())
        #: Set while `drain` waits, which ends the pause of the thread.
        self._is_drained = threading.Event()
        #: The number of lines that were dropped, because of a slow reader or a failed write.
        self.dropped = 0
        self._dropped_told = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue whole lines. If the queue is full, drop and count them."""
        if len(text) > LINE_CHARS_MAX:
            text = f"{text[:LINE_CHARS_MAX]}... ({len(text)} characters)\n"
        with self._changed:
            if self._chars + len(text) > self._chars_max:
                self.dropped += 1
                return len(text)
            self._lines.append(text)
            self._chars += len(text)
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes as fast as the reader reads."""

    def isatty(self) -> bool:
        return False

    def drain(self, timeout_s: float) -> bool:
        """Wait until all lines are written, at most `timeout_s`. Return whether all are written."""
        self._is_drained.set()
        try:
            with self._changed:
                return self._changed.wait_for(
                    lambda: not self._lines and not self._is_writing, timeout=timeout_s
                )
        finally:
            self._is_drained.clear()

    def _run(self) -> None:
        while True:
            self._is_drained.wait(PAUSE_S)
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._lines))
                text = "".join(self._lines)
                count = len(self._lines)
                self._lines.clear()
                self._chars = 0
                self._is_writing = True
                dropped = self.dropped - self._dropped_told
            if dropped:
                text = f"{_dropped_line(dropped)}\n{text}"
            if self._put(text):
                self._dropped_told += dropped
            else:
                with self._changed:
                    self.dropped += count

    def _put(self, text: str) -> bool:
        """Write `text`, and wait until it is written. Return False if that failed."""
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError, AttributeError):
            return self._put_on_stream(text)
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except BlockingIOError:
                select.select([], [descriptor], [], 1.0)
            except OSError:
                return False
        return True

    def _put_on_stream(self, text: str) -> bool:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            return False
        return True


def _dropped_line(count: int) -> str:
    return json.dumps({"event": "log lines were dropped", "level": "warning", "count": count})


class Repeats:
    """A log processor that lets a line with `repeats=True` pass only once a minute.

    Two lines are the same if all their fields are equal. In `reason` and `error`, digits are not
    compared: ports, counts and times may differ there although the state is the same.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: By line: the time at which it may appear again, and how often it was left out since it
        #: last appeared.
        self._seen: collections.OrderedDict[str, tuple[float, int]] = collections.OrderedDict()

    def __call__(self, logger: Any, method: str, event: Event) -> Event:
        if not event.pop("repeats", False):
            return event
        key = repr([(name, _steady(name, value)) for name, value in sorted(event.items())])
        now = self._clock()
        again_at, left_out = self._seen.get(key, (now, 0))
        if now < again_at:
            self._seen[key] = again_at, left_out + 1
            raise structlog.DropEvent
        self._seen[key] = now + REPEAT_INTERVAL_S, 0
        self._seen.move_to_end(key)
        if len(self._seen) > REPEATS_MAX:
            self._seen.popitem(last=False)
        if left_out:
            event["left_out"] = left_out
        return event


_DIGITS: Final = re.compile(r"\d+")


def _steady(name: str, value: Any) -> Any:
    return _DIGITS.sub("#", str(value)) if name in ("reason", "error") else value


def event_first(logger: Any, method: str, event: Event) -> Event:
    """Put the event, the level and the time first, where a reader looks for them."""
    first = {name: event[name] for name in ("event", "level", "timestamp") if name in event}
    return {**first, **event}


class _Safe:
    """A renderer that never raises. If an event can't be rendered, the line has name and error."""

    def __init__(self, render: Callable[[Any, str, Event], Any]) -> None:
        self._render = render

    def __call__(self, logger: Any, method: str, event: Event) -> Any:
        try:
            return self._render(logger, method, event)
        except Exception as error:
            name = str(event.get("event"))[:200]
            return json.dumps({"event": name, "unloggable": type(error).__name__})


def set_up_logs(level: str, stream: TextIO | None = None) -> LineWriter:
    """Log to standard error, or to `stream`: readable text on a terminal, else lines of JSON.

    Python's warnings, failed threads and failed finalizers are logged, too. Otherwise Python itself
    would write them to standard error, which could block the event loop.
    """
    stream = stream or sys.stderr
    writer = LineWriter(stream)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        Repeats(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if stream.isatty():
        # structlog's default shows exceptions with all local variables. If one of the variables is
        # an image, this blocks the event loop for a minute.
        plain = structlog.dev.plain_traceback
        last: list[Any] = [_Safe(structlog.dev.ConsoleRenderer(exception_formatter=plain))]
    else:
        json_renderer = _Safe(structlog.processors.JSONRenderer())
        last = [structlog.processors.format_exc_info, event_first, json_renderer]
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, writer)),
        cache_logger_on_first_use=True,
    )
    # Lines that libraries log by Python's `logging` get the same form.
    handler = logging.StreamHandler(cast(TextIO, writer))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.WARNING))
    logging.raiseExceptions = False  # otherwise logging prints its own errors to standard error
    logging.captureWarnings(True)
    threading.excepthook = _thread_failed
    sys.unraisablehook = _finalizer_failed
    return writer


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    name = failed.thread.name if failed.thread is not None else "?"
    structlog.get_logger(__name__).error(
        "a thread failed", thread=name, exc_info=failed.exc_value or True
    )


def _finalizer_failed(failed: sys.UnraisableHookArgs) -> None:
    structlog.get_logger(__name__).error(
        "a finalizer failed", of=repr(failed.object)[:200], exc_info=failed.exc_value or True
    )
