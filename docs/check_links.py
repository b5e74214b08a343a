"""Every link of the built pages to another page, picture or place in a page leads somewhere.

Sphinx checks the links of its sources; this reads what came of them, notebooks and raw HTML too.
"""

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Links of a page, and the places in it that can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser."""
        for name, value in attrs:
            if name in ("href", "src") and value and tag != "base":
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.places.add(value)


@cache
def read(path: Path) -> Page:
    """A page, read once."""
    return Page(path)


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for link in sorted(read(page).links):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        there = target.is_file()
        if there and target.suffix == ".html":
            there = unquote(parts.fragment) in read(target).places
        if not there:
            found.append(link)
    return found


def main(root: Path) -> None:
    """Say which links are broken, and fail if there are any."""
    pages = sorted(path for path in root.resolve().rglob("*.html") if "_static" not in path.parts)
    lost = [
        f"{page.relative_to(root.resolve())}: {link}" for page in pages for link in broken(page)
    ]
    if lost or not pages:
        sys.exit("\n".join(lost) or f"no pages in {root}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
