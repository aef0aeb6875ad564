"""The seam to other processes: a node starts programs of its own package, and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Protocol

#: The longest line that a program may write.
LINE_BYTES_MAX = 16 * 1024 * 1024
#: The time that a program has to end after its input has ended. After this time it is killed.
END_SECONDS_MAX = 0.5
#: The most bytes of a program's last error output that end() returns.
ERROR_BYTES_MAX = 4096


class Program(Protocol):
    """A running program."""

    async def write(self, line: bytes) -> None:
        """Write a line to the program's input. Raises OSError if the program has ended."""

    def lines(self) -> AsyncIterator[bytes]:
        """Yield the lines of the program's output until the output ends."""

    async def end(self) -> str:
        """End the program. Return a text with its exit status and its last error output."""


class Programs(Protocol):
    """Starts programs."""

    async def start(self, module: str) -> Program:
        """Start `python -m module`. OSError if it can't be started."""


class RealPrograms:
    """Starts processes of the operating system, by exec and never by fork alone."""

    async def start(self, module: str) -> Program:
        """Start `python -m module`, with this interpreter and this environment."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # do not import modules from the working directory
            "-m",
            module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
            start_new_session=True,  # Ctrl-C on the terminal must stop only the node
        )
        return _RealProgram(process)


class _RealProgram:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._errors = asyncio.ensure_future(self._read_errors())

    async def write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        await self._process.stdin.drain()

    async def lines(self) -> AsyncIterator[bytes]:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                yield line
        except ValueError as error:  # the line is longer than LINE_BYTES_MAX
            raise OSError(f"{error}") from error

    async def end(self) -> str:
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS_MAX):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        errors = await self._errors
        told = errors.decode(errors="replace").strip()
        return f"status {process.returncode}" + (f": {told}" if told else "")

    async def _read_errors(self) -> bytes:
        """Read all error output, and return its end. Without a reader, the program would block."""
        assert self._process.stderr is not None
        kept = b""
        while data := await self._process.stderr.read(ERROR_BYTES_MAX):
            kept = (kept + data)[-ERROR_BYTES_MAX:]
        return kept
