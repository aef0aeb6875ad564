"""Writes the body of an encoder. What a version does not have is left out, never refused.

Also null, where a version knows none: it is written as empty. An answer with one field too many
must not leave a client without an answer (KAFKA-14422).
"""

from __future__ import annotations

from proto.kafka.decoding import item_of
from proto.kafka.lines import Lines, default_of, suffix_of
from proto.kafka.notation import Field, Struct

#: The code of a byte of zero, which takes no value.
BLANK = "x"
NULL_LENGTH = 'b"\\xff\\xff\\xff\\xff"'
ZERO = 'b"\\0"'


class Encoder(Lines):
    """Writes the writes of one version of a message."""

    def __init__(self, version: int, *, compact: bool) -> None:
        super().__init__(compact=compact)
        self._version = version
        #: The list that gets the bytes now, and its method append.
        self._out, self._append = "out", "append"
        self._has_records = False

    def flush(self) -> None:
        """Emit the write of the run."""
        layout, run = self.take_run()
        if not run:
            return
        if set(layout) == {BLANK}:
            zeros = '"' + r"\0" * len(layout) + '"'
            self.emit(f"{self._append}(b{zeros})")
            return
        self.formats.add(layout)
        values = ", ".join(value for code, value in run if code != BLANK)
        self.emit(f"{self._append}(pack_{suffix_of(layout)}({values}))")

    def message(self, struct: Struct) -> None:
        self._has_records = any(
            field.type == "records" for each in struct.structs() for field in each.fields
        )
        if self._has_records:
            self.emit("pieces: list[Piece] = []")
        self.emit("out: list[bytes] = []")
        self.emit("append = out.append")
        self._struct(struct, "message")
        self.flush()
        if self._has_records:
            self.emit('pieces.append(b"".join(out))')
            self.emit("return pieces")
        else:
            self.emit('return [b"".join(out)]')

    def _struct(self, struct: Struct, value: str) -> None:
        for field in struct.in_version(self._version):
            self._field(field, f"{value}.{field.name}")
        if self.compact:
            self._tagged(struct.tagged(self._version), value)

    def _tagged(self, fields: list[Field], value: str) -> None:
        if not fields:
            self.add(BLANK, "")
            return
        self.flush()
        section = self.name("section")
        self.emit(f"{section}: list[bytes] = []")
        for field in fields:
            self._tagged_field(field, f"{value}.{field.name}", section)
        with self.block(f"if {section}:"):
            self.emit(f"{self._append}(varint(len({section}) // 3))")
            self.emit(f"{self._out} += {section}")
        with self.block("else:"):
            self.emit(f"{self._append}({ZERO})")

    def _tagged_field(self, field: Field, value: str, section: str) -> None:
        name = self.name(field.name)
        self.emit(f"{name} = {value}")
        test = f"if {name}:" if field.is_array else f"if {name} != {default_of(field)}:"
        if default_of(field) == "None":
            test = f"if {name} is not None:"
        with self.block(test):
            outer = self._out, self._append
            body, data = self.name("body"), self.name("data")
            self._out, self._append = body, self.name("append")
            self.emit(f"{body}: list[bytes] = []")
            self.emit(f"{self._append} = {body}.append")
            self._field(field, name)
            self.flush()
            self._out, self._append = outer
            self.emit(f'{data} = b"".join({body})')
            self.emit(f"{section} += (varint({field.tag}), varint(len({data})), {data})")

    def _field(self, field: Field, value: str) -> None:
        if field.is_array:
            self._array(field, value)
        elif field.struct is not None:
            self._inner(field, field.struct, value)
        elif field.code is not None:
            self.add(field.code, value)
        elif field.type == "records":
            self._records(field, value)
        elif self.is_nullable(field, self._version):
            assert field.type == "string"
            self.flush()
            prefix = "compact_" if self.compact else ""
            self.emit(f"{self._append}({prefix}nullable_string({value}))")
        else:
            self._sized(field, value)

    def _length(self, size: str, code: str) -> None:
        """Emit a length. In the older encoding it joins the run."""
        if not self.compact:
            self.add(code, size)
            return
        self.flush()
        length = self.name("n")
        self.emit(f"{length} = {size} + 1")
        self.emit(f"{self._append}(BYTE[{length}] if {length} < 128 else varint({length}))")

    def _sized(self, field: Field, value: str) -> None:
        """Emit a string or bytes that are not null in this version."""
        empty = '""' if field.type == "string" else 'b""'
        if field.nullable:
            value = f"({value} or {empty})"
        run = self.take_run()[1]
        data = self.name("data")
        self.emit(f"{data} = {value}.encode()" if field.type == "string" else f"{data} = {value}")
        for code, each in run:
            self.add(code, each)
        self._length(f"len({data})", "h" if field.type == "string" else "i")
        self.flush()
        self.emit(f"{self._append}({data})")

    def _null(self) -> None:
        self.emit(f"{self._append}({ZERO if self.compact else NULL_LENGTH})")

    def _records(self, field: Field, value: str) -> None:
        assert self._out == "out", "records are in no tagged field"
        self.flush()
        name = self.name(field.name)
        self.emit(f"{name} = {value}")
        with self.block(f"if {name} is None:"):
            self._null()
        with self.block("else:"):
            self._length(f"len({name})", "i")
            self.flush()
            self.emit('pieces.append(b"".join(out))')
            self.emit(f"pieces.append({name})")
            self.emit("out.clear()")

    def _inner(self, field: Field, struct: Struct, value: str) -> None:
        """Emit a struct that is no item of an array."""
        is_nullable = self.is_nullable(field, self._version)
        if field.tag is not None or not is_nullable:
            self._struct(struct, value)
            return
        self.flush()
        name = self.name(field.name)
        self.emit(f"{name} = {value}")
        with self.block(f"if {name} is None:"):
            self.emit(f'{self._append}(b"\\xff")')
        with self.block("else:"):
            self.add("b", "1")
            self._struct(struct, name)

    def _array(self, field: Field, value: str) -> None:
        if self.is_nullable(field, self._version):
            self.flush()
            name = self.name(field.name)
            self.emit(f"{name} = {value}")
            with self.block(f"if {name} is None:"):
                self._null()
            with self.block("else:"):
                self._items(field, name)
        else:
            self._items(field, f"({value} or ())" if field.nullable else value)

    def _items(self, field: Field, value: str) -> None:
        if field.type == "int32":
            self.flush()
            prefix = "compact_" if self.compact else ""
            self.emit(f"{self._append}({prefix}int32s({value}))")
            return
        run = self.take_run()[1]
        items, item = self.name(field.name), self.name("item")
        self.emit(f"{items} = {value}")
        for code, each in run:
            self.add(code, each)
        self._length(f"len({items})", "i")
        self.flush()
        with self.block(f"for {item} in {items}:"):
            if field.struct:
                self._struct(field.struct, item)
            else:
                self._field(item_of(field), item)
