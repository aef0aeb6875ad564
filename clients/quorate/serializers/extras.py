"""The error for a library that is not installed, because it belongs to an extra of quorate."""

from __future__ import annotations


def missing(name: str, library: str, extra: str) -> ModuleNotFoundError:
    """Return the error.

    >>> print(missing("Avro", "fastavro", "avro"))
    quorate.serializers.Avro needs fastavro, which is not installed: pip install "quorate[avro]"
    """
    return ModuleNotFoundError(
        f"quorate.serializers.{name} needs {library}, which is not installed: "
        f'pip install "quorate[{extra}]"',
        name=library,
    )
