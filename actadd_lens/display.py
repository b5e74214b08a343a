"""How results and running work show themselves: HTML for notebooks, progress bars.

All text is escaped. Colours are the page's own and tints are translucent, so that light and dark
themes both read well. Styles are written in the elements, since some viewers drop style sheets.
Text in dollar signs is not mathematics: the classes tell MathJax.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

ACCENT = "0, 114, 178"
"""Red, green and blue of the tint behind steered text and bars: the first colour of figures."""
DELAY_SECONDS = 2.0
"""Work that takes no longer shows no progress bar, unless one is asked for."""
_CELL = (
    "text-align: left; vertical-align: top; white-space: pre-wrap; padding: 0.1em 0.8em 0.1em 0.2em"
)
_MUTED = "opacity: 0.7"


class Markup(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def html(value: Any) -> Markup:
    """A value as HTML: markup as it is, anything else escaped, floats with three digits.

    >>> html("<b>"), html(0.12345), html(None)
    ('&lt;b&gt;', '0.123', '')
    """
    if isinstance(value, Markup):
        return value
    if value is None:
        return Markup("")
    return Markup(escape(f"{value:.3g}" if isinstance(value, float) else str(value)))


def table(
    columns: Sequence[Any], rows: Iterable[Sequence[Any]], tinted: int | None = None
) -> Markup:
    """A table; one column may be tinted, such as that of the steered run."""

    def cell(tag: str, place: int, value: Any) -> str:
        tint = f"; background-color: rgba({ACCENT}, 0.12)" if place == tinted else ""
        return f'<{tag} style="{_CELL}{tint}">{html(value)}</{tag}>'

    def line(tag: str, values: Sequence[Any]) -> str:
        return f"<tr>{''.join(cell(tag, place, value) for place, value in enumerate(values))}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return Markup(
        f"<table>\n<thead>{line('th', columns)}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    )


def unbroken(text: Any) -> Markup:
    """Text that stays in one line, as an interval does."""
    return Markup(f'<span style="white-space: nowrap">{html(text)}</span>')


def share_bar(share: float) -> Markup:
    """A horizontal bar, from 0 to 1."""
    width = 8 * min(max(share, 0.0), 1.0)
    look = f"height: 0.8em; width: {width:.2f}em; background-color: rgba({ACCENT}, 0.6)"
    return Markup(f'<div style="display: inline-block; {look}"></div>')


def side_by_side(*parts: Markup) -> Markup:
    """Parts side by side where the page is wide enough."""
    inner = "".join(f"<div>{part}</div>" for part in parts)
    return Markup(f'<div style="display: flex; flex-wrap: wrap; gap: 2em">{inner}</div>')


def tokens(placed: Iterable[tuple[str, int | None, float]]) -> Markup:
    """A text in which each token shows the number of the row that is added to it.

    Args:
        placed: For each token its text, the row or None, and the norm of what is added.
    """
    cells = []
    for text, row, norm in placed:
        steered = row is not None
        tint = f"rgba({ACCENT}, {0.35 if norm else 0.12})" if steered else "transparent"
        look = f"white-space: pre; background-color: {tint}; border-right: 1px dotted"
        number = f'<sub style="{_MUTED}">{row}</sub>' if steered else ""
        cells.append(f'<span style="{look}">{html(text)}{number}</span>')
    return Markup(f'<div style="line-height: 2">{"".join(cells)}</div>')


def muted(text: str) -> Markup:
    """A remark in a weaker colour; nothing if the text is empty."""
    return Markup(f'<div style="{_MUTED}">{html(text)}</div>' if text else "")


def folded(title: str, *parts: Markup, unfolded: bool) -> Markup:
    """Parts below a title that shows or hides them."""
    state = " open" if unfolded else ""
    return Markup(f"<details{state}><summary>{html(title)}</summary>{''.join(parts)}</details>")


def block(title: str, *parts: Markup) -> str:
    """What ``_repr_html_`` returns: a title, then the parts."""
    return (  # ipywidgets would set lines as far apart as sliders
        '<div class="actadd-lens tex2jax_ignore mathjax_ignore" style="line-height: 1.4">'
        f"<div><strong>{html(title)}</strong></div>{''.join(parts)}</div>"
    )


@contextmanager
def bar(
    total: int, unit: str, doing: str, shown: bool | None, done: int = 0
) -> Iterator[Callable[[int], object]]:
    """A progress bar; yields the function that advances it by a number of units.

    Args:
        total: Units of the whole work.
        unit: Name of one, such as "token".
        doing: What is done, for the text in front of the bar.
        shown: True always shows the bar, False never does; None shows it when the work lasts
            longer than two seconds, unless tqdm's own ``TQDM_DISABLE`` is set.
        done: Units that were done before; the estimate of the time left is made without them.

    >>> with bar(3, "text", "reading", shown=False) as advance:
    ...     advance(3)
    """
    if shown is False or (shown is None and os.environ.get("TQDM_DISABLE")):
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    delay = DELAY_SECONDS if shown is None else 0
    with tqdm(total=total, unit=unit, desc=doing, initial=done, delay=delay) as drawn:
        yield drawn.update
