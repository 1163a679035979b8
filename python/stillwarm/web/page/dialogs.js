// Asks before something happens, and says what happened. Knows no endpoint: what to do comes as a function.

import { $, el, text } from "./dom.js";

const TOAST = 7000;

/** Opens a dialog: the focus stays inside, Escape closes, and goes back to where it was, or to `fallback`. */
function open(dialog, first, fallback) {
  const before = document.activeElement;
  dialog.showModal();
  first.focus();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const back = before?.isConnected && !before.disabled && before !== document.body ? before : fallback;
        back?.focus();
        resolve(dialog.returnValue);
      },
      { once: true },
    );
  });
}

/** Keeps Tab inside a dialog: browsers make the page behind it inert, but let Tab out to their own bars. */
function trap(dialog) {
  dialog.addEventListener("keydown", (event) => {
    if (event.key !== "Tab") return;
    const stops = [...dialog.querySelectorAll("button, input")].filter((node) => !node.disabled);
    const edge = event.shiftKey ? stops[0] : stops.at(-1);
    if (document.activeElement !== edge) return;
    event.preventDefault();
    (event.shiftKey ? stops.at(-1) : stops[0]).focus();
  });
}

for (const id of ["confirm", "shortcuts"]) trap($(id));

export const dialogIsOpen = () => document.querySelector("dialog[open]") !== null;

/**
 * Asks, and on yes runs `act`. While it runs both buttons wait; when it fails the dialog stays and says why.
 *
 * @param act       async; an error with `leaves` closes the dialog and is not shown here
 * @param fallback  gets the focus when what had it is gone
 * @returns what `act` returned, or undefined if the operator said no
 */
export async function confirm({ title, subject = "", body, verb, doing, act, fallback }) {
  const dialog = $("confirm");
  if (dialog.open) return undefined;
  const [go, cancel] = [$("confirm-go"), $("confirm-cancel")];
  let outcome;
  let running = false;
  text($("confirm-title"), title);
  text($("confirm-subject"), subject);
  $("confirm-subject").hidden = subject === "";
  text($("confirm-text"), body);
  text($("confirm-error"), "");
  text(go, verb);

  const wait = (on) => {
    running = on;
    go.setAttribute("aria-disabled", String(on)); // not `disabled`, which would drop the focus out of the dialog
    cancel.setAttribute("aria-disabled", String(on));
    text(go, on ? doing : verb);
  };
  const yes = async () => {
    if (running) return;
    wait(true);
    text($("confirm-error"), "");
    try {
      outcome = await act();
      dialog.close();
    } catch (error) {
      if (error.leaves) dialog.close();
      else text($("confirm-error"), error.message);
    } finally {
      wait(false);
    }
  };
  const no = () => running || dialog.close();
  const escape = (event) => running && event.preventDefault();

  go.addEventListener("click", yes);
  cancel.addEventListener("click", no);
  dialog.addEventListener("cancel", escape);
  try {
    await open(dialog, cancel, fallback);
  } finally {
    go.removeEventListener("click", yes);
    cancel.removeEventListener("click", no);
    dialog.removeEventListener("cancel", escape);
  }
  return outcome;
}

export function showShortcuts() {
  const dialog = $("shortcuts");
  if (!dialogIsOpen()) open(dialog, $("shortcuts-close"), $("help"));
}

$("shortcuts-close").addEventListener("click", () => $("shortcuts").close());

/** Says what happened, in a live region. It leaves after a while, but not from under the hand. */
export function toast(message) {
  const close = el("button", { type: "button", class: "button icon small", "aria-label": "Dismiss" }, "×");
  const node = el("div", { class: "toast" }, el("p", {}, message), close);
  let timer;
  const stop = () => clearTimeout(timer);
  const start = () => {
    stop();
    timer = setTimeout(() => node.remove(), TOAST);
  };
  for (const name of ["pointerenter", "focusin"]) node.addEventListener(name, stop);
  for (const name of ["pointerleave", "focusout"]) node.addEventListener(name, start);
  close.addEventListener("click", () => {
    stop();
    const held = node.contains(document.activeElement);
    node.remove();
    if (held) $("main").focus();
  });
  $("toasts").append(node);
  while ($("toasts").children.length > 3) $("toasts").firstElementChild.remove();
  start();
}
