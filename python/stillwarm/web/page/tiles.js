// The big figures, the charts and the small figures. Knows the names of the counts; asks for nothing.

import { Chart } from "./charts.js";
import { $, arrange, el, text } from "./dom.js";
import * as f from "./format.js";

const MINUTE = 60_000;

class Tile {
  constructor(id, label, bar = false) {
    this.value = el("dd", { class: "tile-value", id: `tile-${id}` });
    this.unit = el("span", { class: "tile-unit" });
    this.note = el("dd", { class: "tile-note", id: `tile-${id}-note` });
    this.fill = bar ? el("div") : null;
    this.bar = bar ? el("dd", { class: "meter", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 }, this.fill) : null;
    this.node = el("div", { class: "tile" }, el("dt", {}, label), this.value, this.bar, this.note);
  }

  show(value, note) {
    text(this.value, value);
    text(this.note, note);
  }

  /** Part of a whole, 0 to 1; null: there is no limit. */
  part(share, spoken) {
    this.bar.hidden = share === null;
    if (share === null) return;
    const percent = Math.min(100, 100 * share);
    this.fill.style.width = `${percent}%`;
    this.bar.classList.toggle("full", percent >= 90);
    this.bar.setAttribute("aria-valuenow", percent.toFixed(1));
    this.bar.setAttribute("aria-valuetext", spoken);
  }
}

const tiles = {
  rate: new Tile("hit-rate", "Hit rate"),
  requests: new Tile("requests", "Requests / s"),
  saved: new Tile("saved", "Latency saved"),
  memory: new Tile("memory", "Memory", true),
  entries: new Tile("entries", "Entries", true),
  evictions: new Tile("evictions", "Evictions"),
};
$("tiles").append(...Object.values(tiles).map((tile) => tile.node));

const charts = {
  rate: new Chart({
    id: "chart-hit-rate", title: "Hit rate", most: 100, format: (v) => f.percent(v), axis: (v) => `${f.integer(v)} %`,
    series: [{ name: "Hit rate", field: "hitRate", colour: "c-hit" }],
  }),
  requests: new Chart({
    id: "chart-requests", title: "Requests", unit: "per second", format: f.rate, axis: f.plain, least: 4,
    series: [
      { name: "Fresh", field: "fresh", colour: "c-hit" },
      { name: "Stale", field: "stale", colour: "c-stale" },
      { name: "Shared a load", field: "joined", colour: "c-joined" },
      { name: "Loaded", field: "loaded", colour: "c-load" },
    ],
  }),
  saved: new Chart({
    id: "chart-saved", title: "Latency saved", unit: "per second", format: f.duration, axis: f.tick, least: 0.01,
    series: [{ name: "Saved", field: "saved", colour: "c-saved" }],
  }),
};
$("charts").append(...Object.values(charts).map((chart) => chart.node));

/** Evictions for lack of room; what was invalidated or had its time over is no eviction to an operator. */
const evicted = (stats) => (stats.evictions?.size ?? 0) + (stats.evictions?.too_large ?? 0);

export function showTiles(stats, history) {
  const asked = stats.total_requests > 0;
  const recent = history.recentHitRate(MINUTE);
  const latest = history.latest;
  tiles.rate.show(asked ? f.percent(stats.hit_rate, 2) : f.NOTHING, asked ? `Last minute ${f.percent(recent)}` : "No requests yet");
  tiles.requests.show(f.rate(latest?.perSecond), `${f.short(stats.total_requests)} in total`);
  tiles.saved.show(f.duration(stats.seconds_saved), latest?.saved === undefined ? "in total" : `${f.duration(latest.saved)} each second`);

  const share = stats.max_bytes ? stats.bytes / stats.max_bytes : null;
  const ofBytes = share === null ? "No limit in bytes" : `${f.percent(100 * share)} of ${f.bytes(stats.max_bytes)}`;
  tiles.memory.show(f.bytes(stats.bytes), ofBytes);
  tiles.memory.part(share, ofBytes);

  const filled = stats.max_entries ? stats.entries / stats.max_entries : null;
  const size = stats.entries ? `${f.bytes(stats.bytes / stats.entries)} each` : "Empty";
  const ofEntries = filled === null ? size : `of ${f.short(stats.max_entries)}`;
  tiles.entries.show(f.short(stats.entries), ofEntries);
  tiles.entries.part(filled, ofEntries);

  tiles.evictions.show(f.short(evicted(stats)), "For lack of room");
}

export function showCharts(stats, history) {
  const { points, latest } = history;
  const rates = points.map((point) => point.hitRate).filter((value) => typeof value === "number");
  const empty = points.length ? "No requests in this time" : "Collecting: the first values come in a moment";
  const now = latest?.broken ? null : latest;
  charts.rate.update(points, {
    empty,
    foot: rates.length ? `Lowest ${f.percent(Math.min(...rates))} · highest ${f.percent(Math.max(...rates))}` : "",
    now: f.percent(now?.hitRate),
    summary: rates.length
      ? `Hit rate now ${f.percent(rates.at(-1))}, lowest ${f.percent(Math.min(...rates))}, highest ${f.percent(Math.max(...rates))} in the last minutes.`
      : "No hit rate yet.",
  });
  charts.requests.update(points, {
    empty,
    now: f.rate(now?.perSecond),
    summary: now
      ? `${f.rate(now.perSecond)} requests per second now: ${f.rate(now.fresh)} fresh, ${f.rate(now.stale)} stale, ${f.rate(now.joined)} shared a load, ${f.rate(now.loaded)} loaded.`
      : "No requests per second yet.",
  });
  charts.saved.update(points, {
    empty,
    foot: `${f.duration(stats.seconds_saved)} in total`,
    now: f.duration(now?.saved),
    summary: `${f.duration(stats.seconds_saved)} of waiting saved in total${now ? `, ${f.duration(now.saved)} each second now` : ""}.`,
  });
}

export function showDetails(stats) {
  const rows = [
    ["Fresh hits", f.integer(stats.hits - stats.stale_hits)],
    ["Stale hits", f.integer(stats.stale_hits)],
    ["Misses", f.integer(stats.misses)],
    ["Loads", f.integer(stats.loads)],
    ["Mean load", stats.loads ? f.duration(stats.load_seconds / stats.loads) : f.NOTHING],
    ["Shared a load", f.integer(stats.joined)],
    ["Errors", f.integer(stats.errors)],
    ["Lost fills", f.integer(stats.lost_fills)],
    ["Skipped refreshes", f.integer(stats.skipped_refreshes)],
    ["Expired", f.integer(stats.expired)],
    ["Invalidated", f.integer(stats.evictions?.invalidated)],
    ["Running loads", f.integer(stats.flights)],
    // How routes were answered: by outcome, and by "outcome: reason".
    ...Object.entries(stats.http ?? {}).sort().map(([name, count]) => [`HTTP ${f.visible(name)}`, f.integer(count)]),
  ];
  arrange($("details"), rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}
