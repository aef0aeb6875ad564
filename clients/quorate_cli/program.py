"""The name of the program, as help and the scripts of shells have it."""

from __future__ import annotations

from typing import Final

NAME: Final = "quorate"
#: A shell's script sets this variable when it asks for completions. Typer derives it from the name.
COMPLETE_VARIABLE: Final = "_QUORATE_COMPLETE"
