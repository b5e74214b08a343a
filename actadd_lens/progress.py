"""Progress bars: in a terminal or a notebook, for work that is worth watching."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(
    total: int, unit: str, doing: str, shown: bool, done: int = 0
) -> Iterator[Callable[[int], object]]:
    """A bar, and the function that advances it by a number of units; nothing where not shown.

    What was ``done`` before has no part in the estimate of the time that is left.

    >>> with bar(3, "text", "reading", shown=False) as advance:
    ...     advance(3)
    """
    if not shown:
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit=unit, desc=doing, initial=done) as shown_bar:
        yield shown_bar.update
