"""Metrics: numbers computed from completions, and from next-token distributions.

A completion metric is called with completions and gives one float for each. It reads the
completion alone, except for ``Relevance`` and ``Fluency``, which compare it with its prompt.

>>> from actadd_lens import metrics
>>> completion = al.Completion("She talks about", " her wedding, a lovely day.", (), (), 0, 0)
>>> metrics.weddings([completion])
[1.0]
>>> metrics.WordCount(["wedding", "lovely day"])([completion])
[2.0]
>>> metrics.lookup("sentiment")([completion])
[0.5859]

Public names are listed in ``__init__.pyi``. They and the libraries that they need are imported at
first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
