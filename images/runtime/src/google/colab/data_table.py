"""Tables one can read: scrollable, sortable by a click on a heading, filtered by typing, a page at a time."""

from __future__ import annotations

import html
import json
from typing import Any, ClassVar

_STYLE = (
    "<style>.mc-t{font:13px sans-serif;border-collapse:collapse}.mc-t th{cursor:pointer;text-align:left}"
    ".mc-t th,.mc-t td{padding:2px 8px;border-bottom:1px solid #8884}.mc-b{overflow:auto;max-height:480px}"
    ".mc-n{font:12px sans-serif;margin:4px 0}</style>"
)
# Works where the page lets outputs run scripts; elsewhere the first page of rows stays as it is.
_SCRIPT = """<script>(function(){const s=document.currentScript,box=s.previousElementSibling,d=JSON.parse(s.dataset.table);
const body=box.querySelector('tbody'),note=box.querySelector('.mc-n span'),q=box.querySelector('input');let page=0,by=-1,up=true;
function rows(){const t=q.value.toLowerCase();let r=t?d.rows.filter(x=>x.some(c=>String(c).toLowerCase().includes(t))):d.rows.slice();
if(by>=0)r.sort((a,b)=>{const x=a[by],y=b[by];const c=(typeof x==='number'&&typeof y==='number')?x-y:String(x).localeCompare(String(y));return up?c:-c});
return r}function draw(){const r=rows(),n=Math.max(1,Math.ceil(r.length/d.size));page=Math.min(page,n-1);body.textContent='';
for(const x of r.slice(page*d.size,(page+1)*d.size)){const tr=body.insertRow();for(const c of x)tr.insertCell().textContent=c===null?'':c}
note.textContent=`${r.length} rows, page ${page+1} of ${n} `}
box.querySelectorAll('th').forEach((h,i)=>h.onclick=()=>{up=by===i?!up:true;by=i;draw()});q.oninput=()=>{page=0;draw()};
const b=box.querySelectorAll('button');b[0].onclick=()=>{page=Math.max(0,page-1);draw()};b[1].onclick=()=>{page++;draw()};
box.querySelector('.mc-n').hidden=false;draw()})()</script>"""


class DataTable:
    """A data frame shown as an interactive table. The limits are rows and columns; what lies beyond is said, not hidden."""

    include_index: ClassVar[bool] = True
    num_rows_per_page: ClassVar[int] = 25
    max_rows: ClassVar[int] = 20_000
    max_columns: ClassVar[int] = 20
    min_width: ClassVar[str | None] = None

    def __init__(
        self,
        dataframe: Any,
        include_index: bool | None = None,
        num_rows_per_page: int | None = None,
        max_rows: int | None = None,
        max_columns: int | None = None,
        min_width: str | None = None,
    ) -> None:
        self._frame = dataframe
        self._index = self.include_index if include_index is None else include_index
        self._page_rows = num_rows_per_page or self.num_rows_per_page
        self._max_rows = max_rows or self.max_rows
        self._max_columns = max_columns or self.max_columns

    @classmethod
    def formatter(cls, dataframe: Any, **kwargs: Any) -> str:
        """Return the HTML of `dataframe` as a table."""
        return cls(dataframe, **kwargs)._repr_html_()

    def _repr_html_(self) -> str:
        frame = self._frame.iloc[: self._max_rows, : self._max_columns]
        if self._index:
            frame = frame.reset_index()
        columns = [str(name) for name in frame.columns]
        rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False, name=None)]
        cut = self._frame.shape[0] > self._max_rows or self._frame.shape[1] > self._max_columns
        shape = f"{self._frame.shape[0]} rows, {self._frame.shape[1]} columns"
        limit = f" (showing at most {self._max_rows} rows, {self._max_columns} columns)" if cut else ""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        first = "".join(
            "<tr>" + "".join(f"<td>{html.escape('' if c is None else str(c))}</td>" for c in row) + "</tr>"
            for row in rows[: self._page_rows]
        )
        table = html.escape(json.dumps({"rows": rows, "size": self._page_rows}), quote=True)
        script = _SCRIPT.replace("<script>", f'<script data-table="{table}">', 1)
        return (
            f'{_STYLE}<div><div class="mc-n" hidden><input placeholder="Filter" aria-label="Filter"> <span></span>'
            '<button aria-label="Previous page">&lt;</button> <button aria-label="Next page">&gt;</button></div>'
            f'<div class="mc-b"><table class="mc-t"><thead><tr>{head}</tr></thead><tbody>{first}</tbody></table></div>'
            f'<div style="font:12px sans-serif">{shape}{limit}</div></div>{script}'
        )


def enable_dataframe_formatter() -> None:
    """Show every pandas data frame as an interactive table from now on."""
    _formatter().for_type_by_name("pandas", "DataFrame", DataTable.formatter)


def disable_dataframe_formatter() -> None:
    """Show data frames as pandas does."""
    formatter = _formatter()
    formatter.deferred_printers.pop(("pandas.core.frame", "DataFrame"), None)
    formatter.deferred_printers.pop(("pandas", "DataFrame"), None)
    import pandas

    formatter.type_printers.pop(pandas.DataFrame, None)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext google.colab.data_table`."""
    enable_dataframe_formatter()


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext google.colab.data_table`."""
    disable_dataframe_formatter()


def _formatter() -> Any:
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    if shell is None:
        raise RuntimeError("The data table formatter needs a notebook: no IPython shell is running here.")
    return shell.display_formatter.formatters["text/html"]


def _cell(value: Any) -> Any:
    """Return `value` as JSON can carry it: finite numbers stay numbers, all else becomes text."""
    if value is None or isinstance(value, bool | int):
        return value
    number = getattr(value, "item", lambda: value)()
    if isinstance(number, bool | int):
        return number
    if isinstance(number, float) and number == number and abs(number) != float("inf"):
        return number
    return str(value)
