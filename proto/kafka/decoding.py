"""Writes the body of a decoder: one straight line of statements for one version of a message.

Most reads are not checked against the end. A position only grows, so a read beyond the end either
raises, or makes the last check fail, which compares the position with the end. Counts are checked:
no loop is longer than the bytes that are left, and the arrays of a message have at most ITEMS_MAX
items together.
"""

from __future__ import annotations

import struct as structs

from proto.kafka.lines import Lines, default_of, suffix_of
from proto.kafka.notation import Field, Struct


class Decoder(Lines):
    """Writes the reads of one version of a message."""

    def __init__(self, version: int, *, compact: bool) -> None:
        super().__init__(compact=compact)
        self._version = version
        self._has_arrays = False

    def flush(self) -> None:
        """Emit the read of the run."""
        layout, run = self.take_run()
        if not run:
            return
        if layout == "B":
            self.emit(f"{run[0][1]} = buffer[position]")
            self.emit("position += 1")
            return
        self.formats.add(layout)
        targets = ", ".join(name for _, name in run)
        comma = "," if len(run) == 1 else ""
        self.emit(f"{targets}{comma} = read_{suffix_of(layout)}(buffer, position)")
        self.emit(f"position += {structs.calcsize('>' + layout)}")

    def message(self, struct: Struct) -> None:
        with self.block("try:"):
            made = self._struct(struct)
        if self._has_arrays:
            self.lines.insert(0, "    room = ITEMS_MAX")
        if len(self.lines) == 1:
            self.lines.clear()  # no field in this version
        else:
            with self.block("except UNREADABLE as error:"):
                self.emit(f'raise unreadable("{struct.name}", error) from error')
        with self.block("if position != end:"):
            self.emit("raise left_over(position, end)")
        self.emit(f"return {made}")

    def _struct(self, struct: Struct) -> str:
        """Emit the reads of a struct. Return the expression that makes it."""
        found = {}
        for field in struct.in_version(self._version):
            found[field.name] = self._field(field)
        if self.compact:
            self._tagged(struct.tagged(self._version), found)
        self.flush()
        arguments = [found.get(field.name) or default_of(field) for field in struct.fields]
        while arguments and struct.fields[len(arguments) - 1].name not in found:
            arguments.pop()
        return f"{struct.name}({', '.join(arguments)})"

    def _tagged(self, fields: list[Field], found: dict[str, str]) -> None:
        count = self.name("tags")
        self.add("B", count)
        self.flush()
        for field in fields:
            found[field.name] = self.name(field.name)
            self._declare(found[field.name], field, default_of(field))
        with self.block(f"if {count}:"):
            if not fields:
                self.emit("position = skip_tags(buffer, position - 1)")
                return
            self._long(count)
            with self.block(f"for _ in range({count}):"):
                tag, size, stop = self.name("tag"), self.name("size"), self.name("stop")
                for number in (tag, size):
                    self.add("B", number)
                    self.flush()
                    self._long(number)
                self.emit(f"{stop} = position + {size}")
                word = "if"
                for field in fields:
                    with self.block(f"{word} {tag} == {field.tag}:"):
                        made = self._field(field)
                        self.flush()
                        with self.block(f"if position != {stop}:"):
                            self.emit(f'raise bad_tag("{field.name}")')
                        self.emit(f"{found[field.name]} = {made}")
                    word = "elif"
                with self.block("else:"):
                    self.emit(f"position = {stop}")

    def _declare(self, name: str, field: Field, value: str) -> None:
        kind = type_of(field)
        if field.is_array:
            kind = kind.replace("Sequence", "list")
        self.emit(f"{name}: {kind} = {value}")

    def _long(self, name: str) -> None:
        """Emit the read of the further bytes of a varint."""
        with self.block(f"if {name} > 127:"):
            self.emit(f"{name}, position = long_varint(buffer, position - 1)")

    def _field(self, field: Field) -> str:
        """Emit the read of a field. Return the name of its variable."""
        if field.is_array:
            return self._array(field)
        if field.struct is not None:
            return self._inner(field, field.struct)
        if field.code is not None:
            name = self.name(field.name)
            self.add(field.code, name)
            return name
        return self._sized(field)

    def _length(self, field: Field) -> str:
        """Emit the read of a length or count, which is below 0 for null."""
        length = self.name("n")
        is_short = field.type == "string" and not field.is_array
        self.add("B" if self.compact else "h" if is_short else "i", length)
        self.flush()
        if self.compact:
            self._long(length)
            self.emit(f"{length} -= 1")
        return length

    def _sized(self, field: Field) -> str:
        """Emit the read of a string, of bytes or of records."""
        length = self._length(field)
        name, stop = self.name(field.name), self.name("stop")

        def cut() -> None:
            self.emit(f"{stop} = position + {length}")
            self.emit(f"{name} = {CUTS[field.type].format(f'position:{stop}')}")
            self.emit(f"position = {stop}")

        if self.is_nullable(field, self._version):
            self._declare(name, field, "None")
            with self.block(f"if {length} >= 0:"):
                cut()
        else:
            self._refuse_null(length, field)
            cut()
        return name

    def _refuse_null(self, length: str, field: Field) -> None:
        with self.block(f"if {length} < 0:"):
            self.emit(f'raise null("{field.name}")')

    def _inner(self, field: Field, struct: Struct) -> str:
        """Emit the read of a struct that is no item of an array."""
        name = self.name(field.name)
        # In a section of tagged fields, the presence of the field says that it is not null.
        if field.tag is None and self.is_nullable(field, self._version):
            present = self.name("present")
            self.add("b", present)
            self.flush()
            self._declare(name, field, "None")
            with self.block(f"if {present} >= 0:"):
                made = self._struct(struct)
                self.emit(f"{name} = {made}")
        else:
            made = self._struct(struct)
            self.emit(f"{name} = {made}")
        return name

    def _array(self, field: Field) -> str:
        count = self._length(field)
        name = self.name(field.name)
        if self.is_nullable(field, self._version):
            self._declare(name, field, "None")
            with self.block(f"if {count} >= 0:"):
                self._items(field, name, count, is_declared=True)
        else:
            self._refuse_null(count, field)
            self._items(field, name, count, is_declared=False)
        return name

    def _items(self, field: Field, name: str, count: str, *, is_declared: bool) -> None:
        least = self._least_item(field)
        product = count if least == 1 else f"{count} * {least}"
        self._has_arrays = True
        self.emit(f"room -= {count}")
        with self.block(f"if {product} > end - position or room < 0:"):
            self.emit(f'raise bad_count("{field.name}", {count}, end - position)')
        if field.type == "int32":
            self.emit(f"{name} = read_int32s(buffer, position, {count})")
            self.emit(f"position += 4 * {count}")
            return
        if is_declared:
            self.emit(f"{name} = []")
        else:
            self.emit(f"{name}: list[{item_type(field)}] = []")
        with self.block(f"for _ in range({count}):"):
            made = self._struct(field.struct) if field.struct else self._field(item_of(field))
            self.flush()
            self.emit(f"{name}.append({made})")

    def _least_item(self, field: Field) -> int:
        """Return the least size of an item of an array."""
        return self._least(field.struct) if field.struct else self._least_of(item_of(field))

    def _least(self, struct: Struct) -> int:
        return self.compact + sum(map(self._least_of, struct.in_version(self._version)))

    def _least_of(self, field: Field) -> int:
        if field.code is not None and not field.is_array:
            return structs.calcsize(">" + field.code)
        if field.struct is not None and not field.is_array:
            return 1 if self.is_nullable(field, self._version) else self._least(field.struct)
        if self.compact:
            return 1
        return 2 if field.type == "string" and not field.is_array else 4


CUTS = {
    "string": "buffer[{}].decode()",
    "bytes": "bytes(buffer[{}])",
    "records": "memoryview(buffer)[{}]",
}


TYPES = {
    "bool": "bool",
    "string": "str",
    "float64": "float",
    "uuid": "bytes",
    "bytes": "bytes",
    "records": "Piece",
}


def item_type(field: Field) -> str:
    """Return the type of a field, or of its items."""
    if field.struct is not None:
        return field.struct.name
    return TYPES.get(field.type, "int")


def type_of(field: Field) -> str:
    """Return the type of a field over all versions."""
    kind = f"Sequence[{item_type(field)}]" if field.is_array else item_type(field)
    return f"{kind} | None" if field.nullable else kind


def item_of(field: Field) -> Field:
    """Return a field for the items of an array, which are neither null nor tagged."""
    return Field(
        f"{field.name}_item", field.type, False, field.versions, range(0), None, None, None
    )
