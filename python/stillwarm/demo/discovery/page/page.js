// The discovery demo's page: sends the filters, shows HIT or MISS with the time, and the products as a table.
// Everything from an answer becomes text, never markup.

const PATH = "api/v1/products/discover-with-scoring";

const by = (id) => document.getElementById(id);

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

const number = (value, digits) =>
  value === null ? "-" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

function filters(form) {
  const body = {};
  for (const [name, value] of new FormData(form)) if (value !== "") body[name] = Number(value);
  return body;
}

async function ask(body) {
  performance.clearResourceTimings();
  const start = performance.now();
  let answer, found = {};
  try {
    answer = await fetch(PATH, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Search-Source": "frontend" },
      body: JSON.stringify(body),
      cache: "no-store",
    });
    found = await answer.json();
  } catch {
    found = { detail: "the app does not answer" };
  }
  // The browser's own record, where there is one, leaves out what the page itself was busy with.
  const timing = performance.getEntriesByType("resource").find((one) => one.name.endsWith(PATH));
  const ms = timing?.responseEnd ? timing.responseEnd - timing.requestStart : performance.now() - start;
  const label = answer?.ok ? (answer.headers.get("X-Cache") ?? "MISS") : "ERROR";
  return { ok: Boolean(answer?.ok), found, ms, label };
}

function problem(found) {
  if (typeof found.detail === "string") {
    return found.retry_after ? `${found.detail}; try again in ${found.retry_after} s` : found.detail;
  }
  return (found.detail ?? []).map((one) => `${one.loc.slice(1).join(".")}: ${one.msg}`).join("; ") || "no answer";
}

function row(product) {
  const line = document.createElement("tr");
  const name = element("td", product.title ?? "");
  name.append(element("code", product.asin));
  line.append(
    name,
    element("td", number(product.price, 2), "number"),
    element("td", number(product.bsr, 0), "number"),
    element("td", `${number(product.roi_percent, 1)} %`, "number"),
    element("td", number(product.velocity_score, 1), "number"),
    element("td", product.recommendation.replace("_", " ")),
  );
  return line;
}

function show({ ok, found, ms, label }) {
  const badge = by("badge");
  badge.hidden = false;
  badge.textContent = label;
  badge.className = `badge ${label}`;
  by("note").textContent = ok
    ? `${ms.toFixed(1)} ms, ${found.total_count} products, source: ${found.metadata.source}`
    : problem(found);
  by("rows").replaceChildren(...(found.products ?? []).map(row));
  by("results").hidden = !found.products?.length;
}

function remember({ ms, label, found, ok }, body) {
  const item = document.createElement("li");
  const what = Object.entries(body).map(([name, value]) => `${name}=${value}`).join(" ");
  item.append(element("span", label, `badge ${label}`), element("time", `${ms.toFixed(1)} ms`), element("span", what));
  if (ok) item.append(element("span", found.metadata.source, "soft"));
  by("requests").prepend(item);
  while (by("requests").children.length > 12) by("requests").lastChild.remove();
}

let busy = false;
by("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (busy) return;
  busy = true;
  by("search").setAttribute("aria-disabled", "true"); // not disabled: that would take the focus away
  by("note").textContent = "asking ...";
  const body = filters(by("form"));
  const seen = await ask(body);
  show(seen);
  remember(seen, body);
  by("search").removeAttribute("aria-disabled");
  busy = false;
});
