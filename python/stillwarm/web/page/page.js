// The page's course: it polls while the tab is visible, shows what comes, and sends what the operator confirmed.
//
// Views: loading, figures, sign-in, forbidden. When the server cannot be reached the last figures stay, and it is tried
// again after 2, 4, 8, 16, then every 30 seconds.

import * as api from "./api.js";
import { confirm, dialogIsOpen, showShortcuts, toast } from "./dialogs.js";
import { $, text } from "./dom.js";
import * as f from "./format.js";
import { History } from "./history.js";
import { Errors, HotKeys, showAlerts, TypesTable } from "./lists.js";
import { showCharts, showDetails, showTiles } from "./tiles.js";
import { UnknownKeys } from "./unknown.js";

const INTERVAL = 2000;
const LONGEST = 30_000;
const KEYS_EVERY = 10_000; // reading the hot keys reads every entry; the unknown keys are in the database
const KEYS = 20;

const history = new History();
const errors = new Errors();
const types = new TypesTable(invalidateType);
const keys = new HotKeys(invalidateKey);
const unknown = new UnknownKeys(releaseKey);

let stats = null;
let view = "loading";
let paused = false;
let polling = false;
let again = false; // a poll was wished for while one was running
let timer;
let failures = 0;
let lostAt = null;
let retryAt = null;
let keysAt = -Infinity;

// ---------------------------------------------------------------------------------------------------- polling

async function poll() {
  clearTimeout(timer);
  if (polling) {
    again = true;
    return;
  }
  polling = true;
  again = false;
  try {
    const wantsKeys = Date.now() - keysAt >= KEYS_EVERY;
    const figures = await api.get("stats"); // alone at first: who may not see it is asked once
    const [health, alerts, hot, records] = await Promise.all([
      api.get("health", [503]), // DOWN has a body too
      api.get("alerts"),
      wantsKeys ? api.get(`hot-keys?n=${KEYS}`) : null,
      wantsKeys ? api.get("idempotency-unknown", [503]) : null, // the database may be away while the cache is not
    ]);
    arrived(figures.cache_stats, health.state, alerts.alerts, hot, records);
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    failed(error);
  } finally {
    polling = false;
    if (again) poll();
  }
}

function schedule(delay) {
  clearTimeout(timer);
  retryAt = null;
  if (document.hidden || paused || view === "sign-in" || view === "forbidden") return;
  if (failures) retryAt = Date.now() + delay;
  timer = setTimeout(poll, delay);
}

function arrived(figures, state, alerts, hot, records) {
  const at = Date.now();
  const first = stats === null;
  if (lostAt !== null) announce("The server is reachable again.");
  failures = 0;
  lostAt = null;
  stats = figures;
  history.add(stats, at);
  if (hot !== null) {
    keys.update(hot.hot_keys);
    unknown.update(records);
    keysAt = at;
  }
  showTiles(stats, history);
  showCharts(stats, history);
  showDetails(stats);
  types.update(stats.types);
  errors.update(stats.types, stats.last_errors, at);
  showAlerts(alerts, stats.tier);
  showState(state);
  text($("namespace"), f.visible(stats.namespace));
  document.title = stats.total_requests ? `${f.percent(stats.hit_rate)} · stillwarm` : "stillwarm";
  show("figures");
  showConnection();
  if (first && stats.total_requests === 0) announce("The cache is empty.");
  schedule(INTERVAL);
}

function failed(error) {
  if (error.kind === "unauthorized") return askForToken();
  if (error.kind === "forbidden") return show("forbidden");
  failures += 1;
  if (lostAt === null) {
    lostAt = Date.now();
    if (stats !== null) showState("UNKNOWN");
    announce(`The server is not reachable. ${error.message}`);
  }
  text($("unreachable-title"), `Not reachable since ${f.clock(lostAt)}`);
  text($("unreachable-reason"), stats === null ? error.message : `${error.message} These are the last figures.`);
  schedule(Math.min(LONGEST, INTERVAL * 2 ** (failures - 1)));
  showConnection();
}

// ---------------------------------------------------------------------------------------------------- what is shown

function announce(message) {
  text($("announcer"), message);
}

function show(next) {
  const changed = view !== next;
  const asked = view === "sign-in" || view === "forbidden";
  view = next;
  for (const id of ["loading", "sign-in", "forbidden", "figures"]) $(id).hidden = id !== view;
  $("pause").hidden = view !== "figures";
  $("sign-out").hidden = api.token.get() === null || view === "sign-in";
  if (!changed) return;
  if (view === "sign-in" || view === "forbidden") {
    clearTimeout(timer);
    failures = 0;
    lostAt = null;
    showConnection();
  }
  if (view === "figures" && asked) $("main").focus(); // what had the focus is gone
  if (view === "sign-in") $("token").focus();
  if (view === "forbidden") $("forbidden-retry").focus();
}

function showConnection() {
  const lost = lostAt !== null;
  $("unreachable").hidden = !lost;
  $("loading").hidden = view !== "loading" || lost;
  $("figures").classList.toggle("outdated", lost);
  const seen = history.seenAt === null ? "" : f.clock(history.seenAt);
  const live = view === "figures";
  $("updated").dataset.kind = lost ? "lost" : paused ? "paused" : "live";
  text($("updated"), !live ? "" : lost ? `Last figures ${seen}` : paused ? `Paused at ${seen}` : `Live · ${seen}`);
  tick();
}

function tick() {
  const seconds = retryAt === null ? 0 : Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  text($("unreachable-next"), paused ? "Paused." : seconds ? `Next try in ${seconds} s.` : "Trying…");
}

setInterval(() => lostAt !== null && tick(), 1000);

const STATES = { HEALTHY: "ok", WARMING: "info", DEGRADED: "warn", DOWN: "bad", UNKNOWN: "unknown" };

function showState(state) {
  const badge = $("state");
  const before = badge.textContent;
  text(badge, String(state));
  badge.className = `badge ${STATES[state] ?? "info"}`;
  badge.hidden = false;
  if (before && state !== "UNKNOWN" && before !== "UNKNOWN" && before !== state) announce(`The cache is ${state}.`);
}

// ---------------------------------------------------------------------------------------------------- signing in

function askForToken() {
  const held = api.token.get() !== null;
  api.token.set(null);
  text($("sign-in-error"), held ? "This token was not accepted." : "");
  show("sign-in");
}

$("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const value = $("token").value.trim();
  if (!value) return;
  $("token").value = "";
  api.token.set(value);
  if (/[^\x21-\x7e]/.test(value)) askForToken(); // no header can carry it
  else poll();
});

$("sign-out").addEventListener("click", () => {
  api.token.set(null);
  location.reload(); // and nothing of what was seen stays
});

$("forbidden-retry").addEventListener("click", poll);
$("forbidden-token").addEventListener("click", () => {
  api.token.set(null);
  show("sign-in");
});

// ---------------------------------------------------------------------------------------------------- invalidating

/** Sends a change; what takes the whole page away (signing in) closes the dialog. */
async function send(path, body) {
  try {
    return await api.post(path, body);
  } catch (error) {
    if (error.kind === "unauthorized") {
      error.leaves = true;
      askForToken();
    }
    if (error.kind === "forbidden") error.message = `Not allowed: ${error.message}`;
    throw error;
  }
}

/** What the server counted; it does not for types, tags and all, which are one mark whatever they cover. */
function removed(count) {
  if (typeof count !== "number") return "";
  return count === 0 ? " Nothing in memory matched." : ` ${f.counted(count, "entry", "entries")} left memory.`;
}

async function change(question, path, body, done) {
  const answer = await confirm({ doing: "Working…", ...question, act: () => send(path, body) });
  if (answer === undefined) return false;
  toast(done + removed(answer.count));
  keysAt = -Infinity;
  poll();
  return true;
}

const holding = (t) => `${f.counted(t.entries, "entry", "entries")} (${f.bytes(t.bytes)})`;
const reload = (t) => (t.loads ? ` A load takes ${f.duration(t.load_seconds / t.loads)} on average.` : "");

function invalidateType(type) {
  const body =
    `${holding(type)} of this type can no longer be served, and what is being loaded right now will not be stored. ` +
    `The next request for each key waits for its load.${reload(type)}`;
  return change(
    { title: "Invalidate this type?", subject: f.visible(type.name), body, verb: "Invalidate type", fallback: $("types-title") },
    `invalidate/${encodeURIComponent(type.name)}`, {}, `Type ${f.visible(type.name)} invalidated.`,
  );
}

async function invalidateKey(hot) {
  const key = f.visible(hot.key);
  const size = hot.bytes === undefined ? "The entry" : `The entry (${f.bytes(hot.bytes)}, ${f.counted(hot.hits, "hit", "hits")})`;
  const done = await change(
    { title: "Invalidate this key?", subject: key, body: `${size} can no longer be served. The next request for it waits for its load.`, verb: "Invalidate key", fallback: $("keys-title") },
    "invalidate-key", { key: hot.key }, `Key ${key} invalidated.`,
  );
  if (done) keys.forget(hot);
}

async function releaseKey(one) {
  const route = f.visible(one.route);
  const body =
    `It was begun ${f.duration(one.age)} ago, and its process ended in the middle: look first whether it had its effect. ` +
    "The next request with this key runs the handler again.";
  const done = await change(
    { title: "Release this key?", subject: `${route} · ${one.record}`, body, verb: "Release key", fallback: $("main") },
    "idempotency-release", { record: one.record }, `A key of ${route} is released.`,
  );
  if (!done) return;
  unknown.forget(one);
  if (document.activeElement === document.body) $("main").focus(); // the button had it
}

const FORMS = {
  key: (value) => invalidateKey({ key: value }),
  pattern: (value) =>
    change(
      {
        title: "Invalidate by pattern?", subject: f.visible(value), verb: "Invalidate pattern",
        body: "Every entry whose whole key matches can no longer be served. The next request for each waits for its load.",
      },
      "invalidate-pattern", { pattern: value }, `Pattern ${f.visible(value)} invalidated.`,
    ),
  tag: (value) =>
    change(
      {
        title: "Invalidate by tag?", subject: f.visible(value), verb: "Invalidate tag",
        body: "Every entry that carries this tag can no longer be served. The next request for each waits for its load.",
      },
      "invalidate-tag", { tag: value }, `Tag ${f.visible(value)} invalidated.`,
    ),
};

for (const form of document.querySelectorAll("form[data-action]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const input = form.elements.value;
    if (input.value !== "") await FORMS[form.dataset.action](input.value);
  });
}

$("clear-all").addEventListener("click", () =>
  change(
    {
      title: "Clear the whole cache?", verb: "Clear all",
      body: `All ${stats ? holding(stats) : "entries"} are dropped, of every type. Until the cache is warm again, every request waits for its load, and the sources get all of the traffic.`,
    },
    "clear-all", {}, "The cache was cleared.",
  ),
);

// ---------------------------------------------------------------------------------------------------- controls

function setPaused(on) {
  paused = on;
  text($("pause"), paused ? "Resume" : "Pause");
  announce(paused ? "Paused." : "Resumed.");
  if (paused) clearTimeout(timer);
  else poll();
  if (paused) retryAt = null;
  showConnection();
}

const dark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

const showTheme = () => $("theme").setAttribute("aria-label", `Switch to the ${dark() ? "light" : "dark"} theme`);

function switchTheme() {
  const next = dark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  store("stillwarm-theme", next);
  showTheme();
}

function store(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // holds until the page is closed
  }
}

let shortcuts = true;
try {
  shortcuts = localStorage.getItem("stillwarm-shortcuts") !== "off";
} catch {
  // they are on
}

const SHORTCUTS = {
  p: () => view === "figures" && setPaused(!paused),
  r: () => (view === "figures" || view === "loading") && poll(),
  t: switchTheme,
  i: () => {
    if (view !== "figures") return;
    $("invalidate").scrollIntoView({ block: "start" });
    $("by-key").focus({ preventScroll: true });
  },
  "?": showShortcuts,
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea, [contenteditable]");
  if (!shortcuts || typing || dialogIsOpen() || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const action = SHORTCUTS[event.key.toLowerCase()];
  if (action === undefined) return;
  event.preventDefault();
  action();
});

$("pause").addEventListener("click", () => setPaused(!paused));
$("retry").addEventListener("click", poll);
$("theme").addEventListener("click", switchTheme);
$("help").addEventListener("click", showShortcuts);
$("shortcuts-on").checked = shortcuts;
$("shortcuts-on").addEventListener("change", (event) => {
  shortcuts = event.target.checked;
  store("stillwarm-shortcuts", shortcuts ? "on" : "off");
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (!paused && (view === "figures" || view === "loading")) poll();
});

showTheme();
poll();
