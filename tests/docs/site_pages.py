"""A hook of mkdocs: the pages that are not in docs/, and the links between all pages.

The pages of the Python API are made here; those of the repository's other folders are added.

A link in a page is a path in the repository, as a reader of the repository follows it. The site has
another layout, so each link is led to where its target stands in the site. A file that is linked
and is no page (`compose.yaml`) goes into the site as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tests.docs import api_pages

ROOT = Path(__file__).parents[2]
#: Path in the repository -> path in the site.
OUTSIDE = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "deploy/README.md": "containers.md",
    "deploy/three-machines/README.md": "three-machines.md",
}
#: Each example that has a README is a page, in a part of the menu of its own.
EXAMPLES = {
    page.relative_to(ROOT).as_posix(): page.relative_to(ROOT).parent.as_posix() + ".md"
    for page in sorted((ROOT / "examples").rglob("README.md"))
}
OUTSIDE |= EXAMPLES
#: The README is for readers of the repository: in the site the first page takes its place.
README = {"README.md": "index.md"}
FENCE = re.compile(r"^ *(```|~~~)")
CELL = re.compile(r"<td.*?</td>", re.DOTALL)
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the examples into the menu, before the last part."""
    if EXAMPLES and config.nav:
        config.nav.insert(-1, {"Examples": list(EXAMPLES.values())})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside, and all other files that a page links to."""
    for name, place in OUTSIDE.items():
        _add(files, config, name, place)
    for page in list(files.documentation_pages()):
        for target in _linked(page):
            path = ROOT / target
            if path.is_file() and path.suffix != ".md" and files.src_uris.get(target) is None:
                _add(files, config, target, target)
    for place in api_pages.PAGES:
        files.append(File.generated(config, place, content=api_pages.page(place)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page to the places that their targets have in the site."""
    if page.file.src_uri in api_pages.PAGES:
        return markdown
    source = repository_path(page.file)
    folder = os.path.dirname(page.file.src_uri)

    def led(link: re.Match[str]) -> str:
        text, target, anchor = link["text"], link["target"], link["anchor"] or ""
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        place = site_path(os.path.normpath(os.path.join(os.path.dirname(source), target)))
        if text.endswith(".md"):
            text = _title(files, place) or text
        return f"[{text}]({os.path.relpath(place, folder or '.')}{anchor})"

    return "\n".join(line if fenced else LINK.sub(led, line) for line, fenced in lines_of(markdown))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    r"""Take the backslash out of `a\|b` in tables, which GitHub needs there and mkdocs shows."""
    return CELL.sub(lambda cell: cell[0].replace("\\|", "|"), html)


def repository_path(file: File) -> str:
    """Return where a page stands in the repository."""
    assert file.abs_src_path is not None
    return Path(file.abs_src_path).relative_to(ROOT).as_posix()


def site_path(path: str) -> str:
    """Return where a path of the repository stands in the site.

    >>> site_path("deploy/README.md"), site_path("docs/design"), site_path("README.md")
    ('containers.md', 'design/README.md', 'index.md')
    """
    if path in README:
        return README[path]
    if (ROOT / path / "README.md").is_file():
        path = f"{path}/README.md"
    return OUTSIDE.get(path, path.removeprefix("docs/"))


def lines_of(markdown: str) -> Iterator[tuple[str, bool]]:
    """Yield each line, and whether it belongs to a block of code."""
    inside = False
    for line in markdown.splitlines():
        opens = FENCE.match(line) is not None
        yield line, inside or opens
        inside ^= opens


def _add(files: Files, config: MkDocsConfig, name: str, place: str) -> None:
    files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))


def _title(files: Files, place: str) -> str | None:
    """Return the title that a page has in the menu: readers of the site see no names of files."""
    file = files.src_uris.get(place)
    title = file.page.title if file and file.page else None
    return str(title) if title else None


def _linked(page: File) -> Iterator[str]:
    source = repository_path(page)
    for line, fenced in lines_of(page.content_string):
        for link in () if fenced else LINK.finditer(line):
            yield os.path.normpath(os.path.join(os.path.dirname(source), link["target"]))
