// The table of types, the hot keys, the alerts and the recent errors.
//
// Rows are kept from poll to poll and only their text changes. They do not change places while the operator's hand or
// focus is on them: a button must not move away under a click.

import { $, arrange, busy, el, text } from "./dom.js";
import * as f from "./format.js";

const ERRORS = 20;

const meanLoad = (t) => (t.loads ? t.load_seconds / t.loads : null);
const hitRate = (t) => (t.total_requests ? t.hit_rate : null);

const COLUMNS = [
  { id: "type", label: "Type", of: (t) => t.name, show: (v) => f.visible(v), header: true },
  { id: "hits", label: "Hits", of: (t) => t.hits, show: f.integer },
  { id: "stale", label: "Stale", of: (t) => t.stale_hits ?? 0, show: f.integer },
  { id: "misses", label: "Misses", of: (t) => t.misses, show: f.integer },
  { id: "rate", label: "Hit rate", of: hitRate, show: (v) => f.percent(v) },
  { id: "loads", label: "Loads", of: (t) => t.loads, show: f.integer },
  { id: "mean", label: "Mean load", of: meanLoad, show: f.duration },
  { id: "errors", label: "Errors", of: (t) => t.errors, show: f.integer },
  { id: "entries", label: "Entries", of: (t) => t.entries, show: f.integer },
  { id: "bytes", label: "Memory", of: (t) => t.bytes, show: f.bytes },
  { id: "last", label: "Last error", of: (t) => t.last_error ?? "", show: (v) => (v ? f.visible(v) : f.NOTHING) },
];

const ICONS = { ok: "✓", bad: "!" };

export class TypesTable {
  #rows = new Map();
  #types = [];
  #sort = { column: COLUMNS[1], down: true };

  /** `invalidate(type)` is called with a type's figures. */
  constructor(invalidate) {
    this.invalidate = invalidate;
    this.heads = COLUMNS.map((column) => {
      const button = el("button", { type: "button", class: "sort", onclick: () => this.#sortBy(column) }, column.label, el("span", { class: "arrow", "aria-hidden": "true" }));
      return el("th", { scope: "col", role: "columnheader", class: `col-${column.id}` }, button);
    });
    const last = el("th", { scope: "col", role: "columnheader" }, el("span", { class: "visually-hidden" }, "Action"));
    this.body = el("tbody", { role: "rowgroup" });
    // The roles are said because on a phone the rows are laid out as cards, and then browsers forget them.
    this.table = el(
      "table", { class: "types", role: "table", "aria-labelledby": "types-title" },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...this.heads, last)), this.body,
    );
    this.empty = el("p", { class: "empty" }, "No type has been used yet. A type appears here with the first call of a cached function or route.");
    $("types").append(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-labelledby": "types-title" }, this.table), this.empty);
    $("types-sort").append(...COLUMNS.map((column) => el("option", { value: column.id }, column.label)));
    $("types-sort").addEventListener("change", (event) => {
      const column = COLUMNS.find((each) => each.id === event.target.value);
      this.#sort = { column, down: column.id !== "type" };
      this.#place(true);
    });
    this.#place(true);
  }

  update(types) {
    // The type of what has no type is always there; while nothing used it, it says nothing.
    this.#types = Object.entries(types)
      .map(([name, figures]) => ({ ...figures, name }))
      .filter((type) => type.name !== "default" || type.total_requests || type.entries || type.loads);
    const names = new Set(this.#types.map((type) => type.name));
    for (const name of this.#rows.keys()) if (!names.has(name)) this.#rows.delete(name);
    for (const type of this.#types) this.#fill(type);
    this.table.hidden = !this.#types.length;
    this.empty.hidden = this.#types.length > 0;
    text($("types-count"), this.#types.length ? f.counted(this.#types.length, "type", "types") : "");
    this.#place(false);
  }

  #fill(type) {
    let row = this.#rows.get(type.name);
    if (row === undefined) {
      row = { cells: COLUMNS.map((column) => this.#cell(column)) };
      const button = el(
        "button",
        { type: "button", class: "button small", "aria-label": `Invalidate type ${f.visible(type.name)}…`, onclick: () => this.invalidate(row.type) },
        "Invalidate…",
      );
      row.node = el("tr", { role: "row" }, ...row.cells.map((cell) => cell.node), el("td", { role: "cell", class: "action" }, button));
      this.#rows.set(type.name, row);
    }
    row.type = type;
    COLUMNS.forEach((column, i) => {
      const value = column.of(type);
      const { node, shown } = row.cells[i];
      text(shown, column.show(value));
      if (column.id === "rate") shown.style.setProperty("--part", `${value ?? 0}%`);
      if (column.id === "errors") node.classList.toggle("some", value > 0);
      if (column.id === "last") {
        shown.title = value ? f.visible(value) : "";
        node.classList.toggle("none", !value);
      }
    });
  }

  #cell(column) {
    const shown = el(column.header ? "bdi" : "span", { class: "value" });
    const common = { class: `col-${column.id}`, "data-label": column.label };
    const node = column.header
      ? el("th", { ...common, scope: "row", role: "rowheader" }, shown)
      : el("td", { ...common, role: "cell" }, shown);
    return { node, shown };
  }

  #sortBy(column) {
    const same = this.#sort.column === column;
    this.#sort = { column, down: same ? !this.#sort.down : column.id !== "type" };
    this.#place(true);
  }

  #place(now) {
    const { column, down } = this.#sort;
    COLUMNS.forEach((each, i) => {
      if (each === column) this.heads[i].setAttribute("aria-sort", down ? "descending" : "ascending");
      else this.heads[i].removeAttribute("aria-sort");
    });
    $("types-sort").value = column.id;
    const held = !now && busy(this.body);
    if (held && this.body.children.length === this.#types.length) return;
    const order = [...this.#types].sort((a, b) => {
      const [x, y] = [column.of(a), column.of(b)];
      const by = typeof x === "string" ? x.localeCompare(y) : (x ?? -1) - (y ?? -1);
      return (down ? -by : by) || a.name.localeCompare(b.name);
    });
    arrange(this.body, order.map((type) => this.#rows.get(type.name).node));
  }
}

export class HotKeys {
  #rows = new Map();

  /** `invalidate(key)` is called with one of the list. */
  constructor(invalidate) {
    this.invalidate = invalidate;
  }

  update(keys) {
    const list = $("keys");
    const held = busy(list);
    const seen = new Set();
    const nodes = keys.map((hot) => {
      const id = `${hot.type}\n${hot.key}`;
      seen.add(id);
      let row = this.#rows.get(id);
      if (row === undefined) this.#rows.set(id, (row = this.#row(hot)));
      row.hot = hot;
      text(row.hits, f.counted(hot.hits, "hit", "hits"));
      text(row.bytes, f.bytes(hot.bytes));
      return row.node;
    });
    for (const id of this.#rows.keys()) if (!seen.has(id)) this.#rows.delete(id);
    if (!nodes.length) arrange(list, [el("li", { class: "empty" }, "Nothing is in memory. What is cached and used appears here.")]);
    else if (!held) arrange(list, nodes);
  }

  /** Takes a key away at once, before the next poll. */
  forget(hot) {
    const row = this.#rows.get(`${hot.type}\n${hot.key}`);
    row?.node.remove();
  }

  #row(hot) {
    const row = { hits: el("span"), bytes: el("span") };
    const key = f.visible(hot.key);
    const button = el(
      "button",
      { type: "button", class: "button small", "aria-label": `Invalidate key ${key}…`, onclick: () => this.invalidate(row.hot) },
      "Invalidate…",
    );
    row.node = el(
      "li", {},
      el("div", { class: "key" }, el("bdi", { class: "mono", title: key }, key), el("p", { class: "key-facts" }, el("bdi", { class: "tag" }, f.visible(hot.type)), row.hits, row.bytes)),
      button,
    );
    return row;
  }
}

const share = (v) => `${f.plain(Math.round(1000 * v) / 10)}\u00a0%`;

// What an alert is about: its name, its figure as text, and the sentence when it is active.
const ALERTS = {
  hit_rate: ["Hit rate", share, (v, limit) => `Only ${v} of the requests are hits, below ${limit}.`],
  errors: ["Errors", f.integer, (v, limit) => `${v} loads failed lately, above ${limit}.`],
  tier_down: ["Remote tier", (v) => (v >= 1 ? "down" : "up"), () => "The remote tier is down."],
  entries: ["Entries", f.integer, (v, limit) => `${v} entries in memory, above ${limit}.`],
  reuse: ["Reuse", f.plain, (v, limit) => `An entry is used ${v} times on average, below ${limit}.`],
  expired: ["Expired", share, (v, limit) => `${v} of the entries are over, above ${limit}.`],
};

function described(alert, tier) {
  const known = Object.hasOwn(ALERTS, alert.name) ? ALERTS[alert.name] : null;
  const [label, format, sentence] = known ?? [f.words(f.visible(alert.name)), f.plain, (v, limit) => `${v}, limit ${limit}.`];
  const which = alert.name === "tier_down" && tier ? f.visible(tier) : label;
  const [value, limit] = [format(alert.value), format(alert.threshold)];
  const bound = alert.name === "tier_down" ? "" : `${alert.raised === "below" ? "at least" : "at most"} ${limit}`;
  const figure = alert.value === null ? f.NOTHING : value;
  return { ...alert, label: which, message: sentence(value, limit), figure, bound };
}

/** The active ones above everything, and all of them with their figures and how often they were raised. */
export function showAlerts(alerts, tier) {
  const all = alerts.map((alert) => described(alert, tier));
  const active = all.filter((alert) => alert.active);
  $("active").hidden = !active.length;
  arrange($("active-list"), active.map((alert) =>
    el("li", {}, el("span", { class: "mark bad", "aria-hidden": "true" }, ICONS.bad), el("strong", {}, alert.label), el("span", {}, alert.message)),
  ));
  if (!all.length) {
    arrange($("alerts"), [el("li", { class: "empty" }, "No thresholds are set.")]);
    return;
  }
  arrange($("alerts"), all.map((alert) => {
    const kind = alert.active ? "bad" : "ok";
    const times = alert.crossings ? `raised ${f.counted(alert.crossings, "time", "times")}` : "";
    return el(
      "li", {},
      el("span", { class: `mark ${kind}`, "aria-hidden": "true" }, ICONS[kind]),
      el(
        "span", { class: "alert-name" },
        el("span", {}, alert.label, el("span", { class: "visually-hidden" }, alert.active ? ", active" : ", not active")),
        el("span", { class: "alert-times" }, times),
      ),
      el("span", { class: "alert-figure" }, alert.figure),
      el("span", { class: "alert-bound" }, alert.bound),
    );
  }));
}

/** What went wrong while the page was open: the server keeps the last error of each type, and this remembers them. */
export class Errors {
  #seen = new Map();
  #list = [];
  #first = true;

  /** `latest` has the types in the order of their last errors, the newest first. */
  update(types, latest, at) {
    for (const name of latest.map((each) => each.type).reverse()) {
      const { errors = 0, last_error: message } = types[name] ?? {};
      const before = this.#seen.get(name);
      this.#seen.set(name, { errors, message });
      if (!message || (before && before.errors === errors && before.message === message)) continue;
      const more = before && errors > before.errors ? errors - before.errors : 0;
      this.#list.unshift({ type: name, message, at: this.#first ? null : at, more });
    }
    this.#first = false;
    this.#list.length = Math.min(this.#list.length, ERRORS);
    if (!this.#list.length) {
      arrange($("errors"), [el("li", { class: "empty" }, "No load has failed.")]);
      return;
    }
    arrange($("errors"), this.#list.map((each) => (each.node ??= this.#item(each))));
  }

  #item({ type, message, at, more }) {
    const when = at === null ? "before this page was opened" : f.clock(at);
    return el(
      "li", {},
      el("p", { class: "error-facts" }, el("bdi", { class: "tag" }, f.visible(type)), el("span", {}, when), more > 1 ? el("span", {}, `${f.integer(more)} errors`) : null),
      el("p", { class: "mono" }, f.visible(message)),
    );
  }
}
