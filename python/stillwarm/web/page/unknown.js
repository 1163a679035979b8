// The idempotency keys whose outcome is unknown. Nothing is shown while there are none: few apps ever see one.
//
// Neither key nor caller are kept by the server, so a record is known by its route, its age and its hash.

import { $, arrange, busy, el, text } from "./dom.js";
import * as f from "./format.js";

export class UnknownKeys {
  #rows = new Map();

  /** `release(record)` is called with one of the list. */
  constructor(release) {
    this.release = release;
  }

  /** What GET idempotency-unknown said: its list, or why there is none. */
  update({ unknown = null, message = "" }) {
    const keys = unknown ?? [];
    $("unknown").hidden = unknown !== null && !keys.length;
    text($("unknown-count"), keys.length ? f.counted(keys.length, "key", "keys") : "");
    if (unknown === null) {
      arrange($("unknown-list"), [el("li", { class: "empty" }, f.visible(message))]);
      return;
    }
    const held = busy($("unknown-list"));
    const seen = new Set(keys.map((each) => each.record));
    const nodes = keys.map((each) => this.#filled(each));
    for (const id of this.#rows.keys()) if (!seen.has(id)) this.#rows.delete(id);
    if (!held || !nodes.length) arrange($("unknown-list"), nodes);
  }

  /** Takes one away at once, before the next poll. */
  forget(one) {
    this.#rows.get(one.record)?.node.remove();
  }

  #filled(one) {
    let row = this.#rows.get(one.record);
    if (row === undefined) this.#rows.set(one.record, (row = this.#row(one)));
    row.one = one;
    text(row.begun, `begun ${f.duration(one.age)} ago`);
    text(row.expires, `expires in ${f.duration(one.expires_in)}`);
    return row.node;
  }

  #row(one) {
    const route = f.visible(one.route);
    const row = { begun: el("span"), expires: el("span") };
    const button = el(
      "button",
      { type: "button", class: "button small", "aria-label": `Release key ${one.record} of ${route}…`, onclick: () => this.release(row.one) },
      "Release…",
    );
    row.node = el(
      "li", {},
      el(
        "div", { class: "key" },
        el("bdi", { class: "mono", title: route }, route),
        el("p", { class: "key-facts" }, el("bdi", { class: "tag mono" }, one.record), row.begun, row.expires, one.by_cookies ? el("span", {}, "known by cookies") : null),
      ),
      button,
    );
    return row;
  }
}
