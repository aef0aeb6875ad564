"""A history of what clients asked and were told, and its check: was anything lost, or doubled?"""

from __future__ import annotations

from quorate_testing.history.checker import Finding, Verdict, check
from quorate_testing.history.errors import Error
from quorate_testing.history.json_lines import HistoryError, load, save
from quorate_testing.history.kept import Kept
from quorate_testing.history.operations import Operation, Poll, Send, partition_name
from quorate_testing.history.recorder import Call, FileRecorder, Recorder

__all__ = [
    "Call",
    "Error",
    "FileRecorder",
    "Finding",
    "HistoryError",
    "Kept",
    "Operation",
    "Poll",
    "Recorder",
    "Send",
    "Verdict",
    "check",
    "load",
    "partition_name",
    "save",
]
