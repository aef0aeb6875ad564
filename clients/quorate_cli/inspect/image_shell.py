"""The commands of `quorate quorum shell`: ls, cat, find, tree and cd, over a tree of names.

A command takes words and yields lines, one at a time, so that the caller can stop early. This
module knows nothing of disks, terminals or the metadata.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice

from quorate_cli.inspect.image_tree import Folder, Leaf, Node

#: The most entries in the document that `cat` of a folder prints.
DOCUMENT_ENTRIES_MAX = 200_000
COMPLETIONS_MAX = 1000
ROOT = "/"
#: Each command is a method of ImageShell.
COMMANDS = ("ls", "cat", "find", "tree", "cd", "pwd", "help", "exit")
_WILD = frozenset("*?[")

HELP = """\
ls [PATH...]                                  what a folder holds
cat PATH...                                   a value; of a folder, all below it as JSON
find [PATH...] [-name GLOB] [-value GLOB]     what lies below, by name, by value
tree [PATH...] [-depth N]                     what lies below, indented, with values
cd [PATH]   pwd   help   exit
A PATH may hold * ? [..] for one name: cat /topics/*/*/leader; find /topics -name leader -value -1
"""

Path = tuple[str, ...]
Match = tuple[Path, Node]


class ShellError(ValueError):
    """A command cannot be carried out. The text says why, and what is possible."""


class LeaveShell(Exception):
    """The user typed `exit`."""


class ImageShell:
    """A tree, and the present folder in it (`folder`)."""

    def __init__(self, root: Folder, *, as_json: bool = False) -> None:
        self._root = root
        self._as_json = as_json
        self.folder: Path = ()

    def run(self, words: Sequence[str]) -> Iterator[str]:
        """Run one command, given as words.

        Raises LeaveShell, or ShellError, which may also come after some lines.
        """
        if words[0] not in COMMANDS:
            known = ", ".join(COMMANDS)
            raise ShellError(f"{words[0][:100]!r} is no command; known are {known}")
        command: Callable[[list[str]], Iterator[str]] = getattr(self, f"_{words[0]}")
        return command(list(words[1:]))

    def complete(self, line: str, word: str) -> list[str]:
        """Return the possible completions of the last word of a line."""
        if not line[: len(line) - len(word)].strip():
            return [name + " " for name in COMMANDS if name.startswith(word)]
        above, slash, begun = word.rpartition("/")
        try:
            _, folder = self._one(above + slash or ".")
        except ShellError:
            return []
        if not isinstance(folder, Mapping):
            return []
        found = (
            above + slash + name + ("/" if isinstance(folder[name], Mapping) else " ")
            for name in folder
            if name.startswith(begun)
        )
        return list(islice(found, COMPLETIONS_MAX))

    def _ls(self, words: list[str]) -> Iterator[str]:
        matches = self._matches(_no_options(words))
        first = list(islice(matches, 2))
        if len(first) == 1 and not self._as_json:
            ((path, node),) = first
            for name, inner in _entries(path, node):
                yield _marked(name[-1], inner)
            return
        for path, node in (*first, *matches):
            for name, inner in _entries(path, node):
                yield self._row(name, inner, with_value=False)

    def _cat(self, words: list[str]) -> Iterator[str]:
        if not words:
            raise ShellError("cat what? A path: cat /provenance")
        matches = self._matches(_no_options(words))
        first = list(islice(matches, 2))
        for path, node in (*first, *matches):
            if self._as_json:
                yield json.dumps({"path": path_text(path), "value": _plain(path, node)})
            elif len(first) == 1:
                yield _text(path, node)
            else:
                yield f"{path_text(path)}: {_text(path, node)}"

    def _find(self, words: list[str]) -> Iterator[str]:
        name = _option(words, "-name")
        value = _option(words, "-value")
        for path, node in self._matches(_no_options(words)):
            for inner_path, inner in _below(path, node):
                if name is not None and not fnmatchcase(inner_path[-1] if inner_path else "", name):
                    continue
                if value is not None and not _has_value(inner, value):
                    continue
                yield self._row(inner_path, inner, with_value=value is not None or self._as_json)

    def _tree(self, words: list[str]) -> Iterator[str]:
        depth = _whole_number("-depth", _option(words, "-depth"))
        for path, node in self._matches(_no_options(words)):
            if self._as_json:
                yield json.dumps({"path": path_text(path), "value": _plain(path, node, depth)})
                continue
            yield _labelled(path_text(path), path, node)
            yield from _indented(path, node, depth, "  ")

    def _cd(self, words: list[str]) -> Iterator[str]:
        path, node = self._one(*(_no_options(words) or [ROOT]))
        if not isinstance(node, Mapping):
            raise ShellError(f"{path_text(path)} is a value, not a folder: cat shows it")
        self.folder = path
        return iter(())

    def _pwd(self, words: list[str]) -> Iterator[str]:
        _none(words, "pwd")
        yield path_text(self.folder)

    def _help(self, words: list[str]) -> Iterator[str]:
        del words
        yield from HELP.splitlines()

    def _exit(self, words: list[str]) -> Iterator[str]:
        _none(words, "exit")
        raise LeaveShell

    def _row(self, path: Path, node: Node, *, with_value: bool) -> str:
        is_folder = isinstance(node, Mapping)
        if self._as_json:
            row: dict[str, object] = {"path": path_text(path), "folder": is_folder}
            return json.dumps({**row, "value": node} if with_value and not is_folder else row)
        if with_value and not is_folder:
            return f"{path_text(path)}: {_text(path, node)}"
        return _marked(path_text(path), node) if path else ROOT

    def _one(self, *words: str) -> Match:
        found = list(islice(self._matches(list(words)), 2))
        if len(found) > 1 or len(words) != 1:
            raise ShellError(f"{' '.join(words)[:100]}: one path is needed here")
        return found[0]

    def _matches(self, words: list[str]) -> Iterator[Match]:
        """Yield the entries that the paths name, in order. Without paths, yield the present folder.

        Raises ShellError at a path that does not exist.
        """
        for word in words or ["."]:
            parts = self._parts(word)
            found = _matching((), self._root, parts)
            first = next(found, None)
            if first is None:
                raise ShellError(self._absent(word, parts))
            yield first
            yield from found

    def _parts(self, word: str) -> Path:
        parts = [] if word.startswith("/") else list(self.folder)
        for name in word.split("/"):
            if name == "..":
                del parts[-1:]
            elif name not in ("", "."):
                parts.append(name)
        return tuple(parts)

    def _absent(self, word: str, parts: Path) -> str:
        """Return a sentence that tells how far the path exists, and which entries are there."""
        node: Node = self._root
        known: Path = ()
        for name in parts:
            if not isinstance(node, Mapping) or name not in node:
                break
            node, known = node[name], (*known, name)
        where = path_text(known)
        if not isinstance(node, Mapping):
            return f"{word[:200]}: {where} is a value, and nothing lies below it"
        shown = ", ".join(islice(node, 10)) + (", …" if len(node) > 10 else "")
        return f"{word[:200]}: no such entry; {where} holds {shown or 'nothing'}"


def words_of(line: str) -> list[str]:
    """Split a line as a shell does. Raise ShellError if a quote stays open.

    >>> words_of("find / -name 'a b'  # why not")
    ['find', '/', '-name', 'a b']
    """
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise ShellError(f"{line.strip()[:100]}: {error}") from None


def path_text(path: Path) -> str:
    """Return a path as a user types it.

    >>> path_text(("topics", "orders")), path_text(())
    ('/topics/orders', '/')
    """
    return "/" + "/".join(path)


def _matching(path: Path, node: Node, parts: Path) -> Iterator[Match]:
    if not parts:
        yield path, node
        return
    if not isinstance(node, Mapping):
        return
    name, rest = parts[0], parts[1:]
    if name in node:
        yield from _matching((*path, name), node[name], rest)
    elif not _WILD.isdisjoint(name):
        for one in node:
            if fnmatchcase(one, name):
                yield from _matching((*path, one), node[one], rest)


def _entries(path: Path, node: Node) -> Iterator[Match]:
    if not isinstance(node, Mapping):
        yield path, node
        return
    for name in node:
        yield (*path, name), node[name]


def _below(path: Path, node: Node) -> Iterator[Match]:
    yield path, node
    if isinstance(node, Mapping):
        for name in node:
            yield from _below((*path, name), node[name])


def _indented(path: Path, node: Node, depth: int | None, indent: str) -> Iterator[str]:
    if not isinstance(node, Mapping) or depth == 0:
        return
    for name in node:
        inner = node[name]
        yield indent + _labelled(name, (*path, name), inner)
        deeper = None if depth is None else depth - 1
        yield from _indented((*path, name), inner, deeper, indent + "  ")


def _labelled(label: str, path: Path, node: Node) -> str:
    return _marked(label, node) if isinstance(node, Mapping) else f"{label}: {_text(path, node)}"


def _marked(name: str, node: Node) -> str:
    return name + "/" if isinstance(node, Mapping) and not name.endswith("/") else name


def _has_value(node: Node, glob: str) -> bool:
    return not isinstance(node, Mapping) and fnmatchcase(_leaf(node), glob)


def _text(path: Path, node: Node) -> str:
    return json.dumps(_plain(path, node)) if isinstance(node, Mapping) else _leaf(node)


def _leaf(value: Leaf) -> str:
    """Return a value as plain text if a terminal can print it safely; else as JSON."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def _plain(path: Path, node: Node, depth: int | None = None) -> object:
    """Return a node as JSON values. Raise ShellError if it has too many entries."""
    left = DOCUMENT_ENTRIES_MAX

    def plain(node: Node, depth: int | None) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise ShellError(
                f"{path_text(path)} holds more than {DOCUMENT_ENTRIES_MAX} entries: take what lies"
                " below it one by one, or use find or tree"
            )
        if not isinstance(node, Mapping):
            return node
        if depth == 0:
            return {}
        deeper = None if depth is None else depth - 1
        return {name: plain(node[name], deeper) for name in node}

    return plain(node, depth)


def _option(words: list[str], name: str) -> str | None:
    """Remove an option and its value from the words. Return the value; None without the option."""
    if name not in words:
        return None
    at = words.index(name)
    if at + 1 == len(words):
        raise ShellError(f"{name} needs a value")
    value = words[at + 1]
    del words[at : at + 2]
    return value


def _no_options(words: list[str]) -> list[str]:
    for word in words:
        if word.startswith("-"):
            raise ShellError(f"{word[:100]!r} is no option here; help says which there are")
    return words


def _none(words: list[str], command: str) -> None:
    if words:
        raise ShellError(f"{command} takes nothing, not {' '.join(words)[:100]!r}")


def _whole_number(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ShellError(f"{name} must be a whole number, 0 or more, not {text[:100]!r}")
    return int(text)
