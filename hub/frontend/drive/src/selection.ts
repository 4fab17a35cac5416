/** Which rows are selected, and how clicks and keys change that. Pure: rows are ids in the order shown. */

export interface Selection {
  readonly ids: ReadonlySet<string>;
  /** Where a range begins. */
  readonly anchor: string | null;
  /** The row that keys act from. */
  readonly focus: string | null;
}

export const NOTHING: Selection = { ids: new Set(), anchor: null, focus: null };

export function only(id: string): Selection {
  return { ids: new Set([id]), anchor: id, focus: id };
}

/** Ctrl+click: add or take away one row. */
export function toggled(selection: Selection, id: string): Selection {
  const ids = new Set(selection.ids);
  if (!ids.delete(id)) {
    ids.add(id);
  }
  return { ids, anchor: id, focus: id };
}

/** Shift+click: everything from the anchor to this row; with `add`, besides what is selected already. */
export function extended(selection: Selection, order: readonly string[], id: string, add = false): Selection {
  const anchor = selection.anchor !== null && order.includes(selection.anchor) ? selection.anchor : id;
  const [from, to] = [order.indexOf(anchor), order.indexOf(id)].sort((a, b) => a - b) as [number, number];
  const range = order.slice(Math.max(from, 0), to + 1);
  return { ids: new Set(add ? [...selection.ids, ...range] : range), anchor, focus: id };
}

/** Arrow keys, Home and End: go `by` rows from the focus, taking the range along with Shift. */
export function moved(selection: Selection, order: readonly string[], by: number, extend: boolean): Selection {
  if (order.length === 0) {
    return NOTHING;
  }
  const at = selection.focus === null ? -1 : order.indexOf(selection.focus);
  const start = at === -1 ? (by > 0 ? -1 : order.length) : at;
  const id = order[Math.min(Math.max(start + by, 0), order.length - 1)] as string;
  return extend && at !== -1 ? extended(selection, order, id) : only(id);
}

export function everything(selection: Selection, order: readonly string[]): Selection {
  const focus = selection.focus ?? order[0] ?? null;
  return { ids: new Set(order), anchor: order[0] ?? null, focus };
}

/** Keep what still exists; when the focused row has gone, its place keeps the focus. */
export function pruned(selection: Selection, before: readonly string[], after: readonly string[]): Selection {
  const alive = new Set(after);
  const ids = new Set([...selection.ids].filter((id) => alive.has(id)));
  let focus = selection.focus;
  if (focus !== null && !alive.has(focus)) {
    const place = before.indexOf(focus);
    focus = after[Math.min(Math.max(place, 0), after.length - 1)] ?? null;
  }
  const anchor = selection.anchor !== null && alive.has(selection.anchor) ? selection.anchor : focus;
  return { ids, anchor, focus };
}

export function sameSelection(a: Selection, b: Selection): boolean {
  return a.focus === b.focus && a.ids.size === b.ids.size && [...a.ids].every((id) => b.ids.has(id));
}
