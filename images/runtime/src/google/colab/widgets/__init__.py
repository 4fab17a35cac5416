"""Tabs and grids for outputs, built on ipywidgets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from google.colab.errors import WidgetException

__all__ = ["Grid", "TabBar", "WidgetException", "create_grid"]


class TabBar:
    """A bar of tabs, each with an output of its own: `with bar.output_to('one'): print(1)`."""

    def __init__(self, tab_names: Iterable[str], location: str = "top") -> None:
        import ipywidgets

        if location not in ("top", "bottom", "start", "end"):
            raise ValueError("location must be one of 'top', 'bottom', 'start' and 'end'")
        self._names = list(tab_names)
        self._outputs = [ipywidgets.Output() for _ in self._names]
        self._tab = ipywidgets.Tab(children=self._outputs, titles=tuple(self._names))
        _display(self._tab)

    def output_to(self, tab: str | int, select: bool = True) -> AbstractContextManager[Any]:
        """Return a context whose outputs go to a tab, named or numbered; it is shown when `select`."""
        index = self._index(tab)
        if select:
            self._tab.selected_index = index
        output: AbstractContextManager[Any] = self._outputs[index]
        return output

    def clear_tab(self, tab: str | int | None = None) -> None:
        """Empty a tab (default: the one that is shown)."""
        index = self._tab.selected_index if tab is None else self._index(tab)
        self._outputs[index or 0].clear_output()

    def remove(self, wait: bool = False) -> None:
        """Take the bar away."""
        self._tab.close()

    def __iter__(self) -> Iterator[str]:
        for name in self._names:
            with self.output_to(name):
                yield name

    def _index(self, tab: str | int) -> int:
        if isinstance(tab, str):
            if tab not in self._names:
                raise WidgetException(f"There is no tab named {tab!r}.")
            return self._names.index(tab)
        if not 0 <= tab < len(self._names):
            raise WidgetException(f"There is no tab number {tab}.")
        return tab


class Grid:
    """A grid of outputs: `with grid.output_to(0, 1): print(1)`."""

    def __init__(
        self, rows: int, columns: int, header_row: bool = False, header_column: bool = False, style: str = ""
    ) -> None:
        import ipywidgets

        self._rows, self._columns = rows, columns
        self._current = (0, 0)
        self._outputs = [[ipywidgets.Output() for _ in range(columns)] for _ in range(rows)]
        layout = ipywidgets.Layout(grid_template_columns=f"repeat({columns}, auto)", grid_gap="4px")
        self._box = ipywidgets.GridBox([output for row in self._outputs for output in row], layout=layout)
        _display(self._box)

    def output_to(self, row: int, col: int) -> AbstractContextManager[Any]:
        """Return a context whose outputs go to one cell of the grid."""
        if not (0 <= row < self._rows and 0 <= col < self._columns):
            raise WidgetException(
                f"There is no cell ({row}, {col}) in a grid of {self._rows} x {self._columns}."
            )
        self._current = (row, col)
        output: AbstractContextManager[Any] = self._outputs[row][col]
        return output

    def clear_cell(self, row: int | None = None, col: int | None = None) -> None:
        """Empty a cell (default: the one written to last)."""
        at_row, at_col = self._current
        self._outputs[at_row if row is None else row][at_col if col is None else col].clear_output()

    def remove(self, wait: bool = False) -> None:
        """Take the grid away."""
        self._box.close()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for row in range(self._rows):
            for col in range(self._columns):
                with self.output_to(row, col):
                    yield row, col


def create_grid(
    row_data: Iterable[Any],
    col_data: Iterable[Any],
    data_render: Callable[[Any, Any], None],
    header_render: Callable[[Any, Any], None] | None = None,
    header_row: bool = True,
    header_column: bool = True,
) -> Grid:
    """Fill a grid by calling `data_render(row, column)` in each cell, and `header_render` in the headings."""
    rows, columns = list(row_data), list(col_data)
    grid = Grid(len(rows) + header_row, len(columns) + header_column, header_row, header_column)
    heading = header_render or (lambda row, column: print(row if row is not None else column))
    for i, row in enumerate(rows):
        if header_column:
            with grid.output_to(i + header_row, 0):
                heading(row, None)
        for j, column in enumerate(columns):
            with grid.output_to(i + header_row, j + header_column):
                data_render(row, column)
    if header_row:
        for j, column in enumerate(columns):
            with grid.output_to(0, j + header_column):
                heading(None, column)
    return grid


def _display(widget: Any) -> None:
    from IPython.display import display

    show: Any = display
    show(widget)
