"""Types of tables and figures, for annotations: pandas and matplotlib are slow to import."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Figure
    from pandas import DataFrame as DataFrame
    from pandas import Series as Series
else:
    DataFrame = Figure = Series = Any
