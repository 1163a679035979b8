// Line and area charts over time, in SVG. A chart knows points and series, and nothing of caches.
//
// The plot is a slider for the keyboard: the arrows move a cursor from point to point and its value is read out. Each
// chart has a sentence that says what it shows, and can turn into a table.

import { arrange, el, svg, text } from "./dom.js";
import { clock } from "./format.js";
import { WINDOW } from "./history.js";

const HEIGHT = 190;
const MARGIN = { top: 12, right: 14, bottom: 26, left: 48 };
const STEPS = [10, 20, 30, 60, 120];
const ROWS = 15;

/** The least round number that is not below `value`: 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value * 0.999) * power;
}

function ago(seconds) {
  if (seconds === 0) return "now";
  if (seconds < 60) return `−${seconds} s`;
  return seconds % 60 ? `−${Math.floor(seconds / 60)}:${seconds % 60}` : `−${seconds / 60} min`;
}

const legendOf = (series) =>
  el("ul", { class: "legend" }, ...series.map((s) => el("li", {}, el("i", { class: `swatch ${s.colour}` }), s.name)));

export class Chart {
  #points = [];
  #cursor = null; // the time of the point that is being read
  #width = 0;
  #asTable = false;

  /**
   * @param title   what the chart shows
   * @param series  [{ name, field, colour }]; several are stacked, the first at the bottom
   * @param format  of a value
   * @param axis    of a value at the axis, if it is another one
   * @param most    top of the axis; without it, what the values need, and at least `least`
   */
  constructor({ id, title, unit, series, format, axis, most, least = 1 }) {
    Object.assign(this, { title, series, format, axis: axis ?? format, most, least });
    this.now = el("p", { class: "chart-now" });
    this.summary = el("p", { class: "visually-hidden", id: `${id}-summary` });
    this.svg = svg("svg", { "aria-hidden": "true", focusable: "false", height: HEIGHT });
    this.tip = el("div", { class: "tip", "aria-hidden": "true", hidden: true });
    this.empty = el("p", { class: "chart-empty" });
    this.plot = el(
      "div",
      {
        class: "plot", tabindex: 0, role: "slider", "aria-label": `${title}, read by time`, "aria-orientation": "horizontal",
        "aria-describedby": `${id}-summary`, "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0,
        onpointermove: (event) => this.#point(event), onpointerdown: (event) => this.#point(event),
        onpointerleave: () => this.#read(null), onblur: () => this.#read(null), onkeydown: (event) => this.#key(event),
      },
      this.svg, this.tip, this.empty,
    );
    this.table = el("div", { class: "chart-table", tabindex: 0, role: "region", "aria-label": `${title}, table`, hidden: true });
    this.toggle = el(
      "button",
      { type: "button", class: "button small", "aria-pressed": "false", "aria-label": `${title} as a table`, onclick: () => this.#flip() },
      "Table",
    );
    this.foot = series.length > 1 ? legendOf(series) : el("p", { class: "legend" });
    this.node = el(
      "figure",
      { class: "card chart", id },
      el(
        "figcaption", { class: "card-head" },
        el("h3", {}, title, el("span", { class: "unit" }, unit)), this.now, this.toggle,
      ),
      this.summary, this.plot, this.table, this.foot,
    );
    new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width !== this.#width) {
        this.#width = width;
        this.#draw();
      }
    }).observe(this.plot);
  }

  /** Shows other points. `now` is the figure in the head, `foot` a line below, `summary` says what the picture shows. */
  update(points, { now, summary, empty, foot }) {
    this.#points = points;
    text(this.now, now);
    if (foot !== undefined) text(this.foot, foot);
    text(this.summary, summary);
    text(this.empty, points.some((point) => this.#total(point) !== null) ? "" : empty);
    this.#draw();
    this.#fillTable();
  }

  #total(point) {
    let sum = null;
    for (const { field } of this.series) if (typeof point[field] === "number") sum = (sum ?? 0) + point[field];
    return sum;
  }

  #readable() {
    return this.#points.filter((point) => this.#total(point) !== null);
  }

  // ------------------------------------------------------------------------------------------------ the picture

  #scales() {
    const end = this.#points.at(-1)?.at ?? Date.now();
    const age = end - (this.#points[0]?.at ?? end);
    const span = Math.min(WINDOW, Math.max(60_000, age));
    const highest = Math.max(...this.#points.map((point) => this.#total(point) ?? 0), 0);
    const top = this.most ?? Math.max(this.least, highest ? ceiling(highest) : 0);
    const inner = { w: this.#width - MARGIN.left - MARGIN.right, h: HEIGHT - MARGIN.top - MARGIN.bottom };
    return {
      end, span, top, inner,
      x: (at) => MARGIN.left + inner.w * (1 - (end - at) / span),
      y: (value) => MARGIN.top + inner.h * (1 - value / top),
    };
  }

  #draw() {
    if (this.#width < 80 || this.#asTable) return;
    this.svg.setAttribute("width", this.#width);
    this.svg.setAttribute("viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    const scales = this.#scales();
    this.scales = scales;
    arrange(this.svg, [...this.#axes(scales), ...this.#shapes(scales), this.#marker(scales)]);
    this.#tell(scales);
  }

  #axes({ end, span, top, inner, x, y }) {
    const nodes = [];
    for (let i = 0; i <= 4; i += 1) {
      const value = (top * i) / 4;
      nodes.push(svg("line", { class: i ? "grid" : "axis", x1: MARGIN.left, x2: MARGIN.left + inner.w, y1: y(value), y2: y(value) }));
      if (i % 2 === 0) nodes.push(svg("text", { x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, this.axis(value)));
    }
    const most = inner.w < 300 ? 3 : 5;
    const step = STEPS.find((seconds) => span / 1000 / seconds <= most) ?? 120;
    for (let seconds = 0; seconds * 1000 <= span; seconds += step) {
      const at = x(end - seconds * 1000);
      const anchor = seconds === 0 ? "end" : at < MARGIN.left + 12 ? "start" : "middle";
      nodes.push(svg("text", { x: at, y: HEIGHT - 7, "text-anchor": anchor }, ago(seconds)));
    }
    return nodes;
  }

  /** Runs of points without a gap between them. */
  #runs() {
    const runs = [];
    let run = [];
    for (const point of this.#points) {
      const readable = this.#total(point) !== null;
      if (run.length && (point.broken || !readable)) runs.push(run.splice(0));
      if (readable) run.push(point);
    }
    return run.length ? [...runs, run] : runs;
  }

  #shapes({ x, y }) {
    const nodes = [];
    const stacked = this.series.length > 1;
    for (const run of this.#runs()) {
      const floor = run.map(() => 0);
      for (const { field, colour } of this.series) {
        const lower = run.map((point, i) => `${x(point.at).toFixed(1)},${y(floor[i]).toFixed(1)}`);
        run.forEach((point, i) => (floor[i] += point[field]));
        const upper = run.map((point, i) => `${x(point.at).toFixed(1)},${y(floor[i]).toFixed(1)}`);
        nodes.push(svg("path", { class: `area ${colour}${stacked ? " stacked" : ""}`, d: `M${upper.join("L")}L${lower.reverse().join("L")}Z` }));
        // A single point is a line of no length, which round caps make a dot.
        nodes.push(svg("path", { class: `line ${colour}${stacked ? " stacked" : ""}`, d: `M${upper.join("L")}${run.length === 1 ? "h0" : ""}` }));
      }
    }
    return nodes;
  }

  // ------------------------------------------------------------------------------------------------ reading it

  #marked() {
    return this.#cursor === null ? null : (this.#readable().find((point) => point.at === this.#cursor) ?? null);
  }

  #marker({ inner, x, y }) {
    const group = svg("g", { class: "marker" });
    const point = this.#marked();
    if (point === null) return group;
    const at = x(point.at);
    group.append(svg("line", { x1: at, x2: at, y1: MARGIN.top, y2: MARGIN.top + inner.h }));
    let sum = 0;
    for (const { field, colour } of this.series) {
      sum += point[field];
      group.append(svg("circle", { class: colour, cx: at, cy: y(sum), r: 4 }));
    }
    return group;
  }

  #tell({ x }) {
    const readable = this.#readable();
    const point = this.#marked();
    this.plot.setAttribute("aria-valuemax", Math.max(0, readable.length - 1));
    this.plot.setAttribute("aria-valuenow", point === null ? Math.max(0, readable.length - 1) : readable.indexOf(point));
    const spoken = point ?? readable.at(-1);
    this.plot.setAttribute("aria-valuetext", spoken ? this.#sentence(spoken) : "No values yet");
    this.tip.hidden = point === null;
    if (point === null) return;
    arrange(this.tip, [
      el("p", { class: "tip-time" }, clock(point.at)),
      ...[...this.series].reverse().map((s) =>
        el("p", {}, el("i", { class: `swatch ${s.colour}` }), el("span", {}, s.name), el("b", {}, this.format(point[s.field]))),
      ),
    ]);
    // Beside the line that is read, on the side with more room, so that it does not cover it.
    const at = x(point.at);
    const wanted = at > this.#width / 2 ? at - this.tip.offsetWidth - 12 : at + 12;
    const left = Math.min(Math.max(wanted, 0), this.#width - this.tip.offsetWidth);
    this.tip.style.transform = `translateX(${Math.round(left)}px)`;
  }

  #sentence(point) {
    return `${clock(point.at)}: ${this.series.map((s) => `${s.name} ${this.format(point[s.field])}`).join(", ")}`;
  }

  #read(at) {
    if (at === this.#cursor) return;
    this.#cursor = at;
    this.#draw();
  }

  #point(event) {
    const readable = this.#readable();
    if (!readable.length || !this.scales) return;
    const position = event.clientX - this.svg.getBoundingClientRect().left;
    const distance = (point) => Math.abs(this.scales.x(point.at) - position);
    this.#read(readable.reduce((best, point) => (distance(point) < distance(best) ? point : best)).at);
  }

  #key(event) {
    const readable = this.#readable();
    if (!readable.length) return;
    if (event.key === "Escape") {
      this.#read(null);
      return;
    }
    const last = readable.length - 1;
    const marked = this.#marked();
    const place = marked === null ? last : readable.indexOf(marked);
    const moves = {
      ArrowLeft: marked === null ? last : place - 1, ArrowDown: place - 1, ArrowRight: place + 1, ArrowUp: place + 1,
      PageUp: place + 10, PageDown: place - 10, Home: 0, End: last,
    };
    if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.#read(readable[Math.min(last, Math.max(0, moves[event.key]))].at);
  }

  // ------------------------------------------------------------------------------------------------ as a table

  #flip() {
    this.#asTable = !this.#asTable;
    this.toggle.setAttribute("aria-pressed", String(this.#asTable));
    text(this.toggle, this.#asTable ? "Chart" : "Table");
    this.plot.hidden = this.#asTable;
    this.table.hidden = !this.#asTable;
    this.#fillTable();
    this.#draw();
  }

  #fillTable() {
    if (!this.#asTable) return;
    const rows = this.#readable().slice(-ROWS).reverse();
    arrange(this.table, [
      el(
        "table", {},
        el("caption", { class: "visually-hidden" }, `${this.title}, the last ${ROWS} values`),
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Time"), ...this.series.map((s) => el("th", { scope: "col" }, s.name)))),
        el(
          "tbody", {},
          ...rows.map((point) =>
            el("tr", {}, el("th", { scope: "row" }, clock(point.at)), ...this.series.map((s) => el("td", {}, this.format(point[s.field])))),
          ),
        ),
      ),
    ]);
  }
}
