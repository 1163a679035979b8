// Figures and foreign text as an operator reads them. Pure functions. A unit does not leave its number (\u00a0).

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 4 });
const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const NOTHING = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** 1234567 as 1,234,567. */
export const integer = (value) => (known(value) ? whole.format(value) : NOTHING);

/** As `integer` up to seven digits, then shortened: 12.35M. */
export const short = (value) => (known(value) && Math.abs(value) >= 1e7 ? compact.format(value) : integer(value));

function decimals(value, digits) {
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A rate per second: two digits below 10, one below 100, none above. */
export function rate(value) {
  if (!known(value)) return NOTHING;
  return decimals(value, value === 0 || value >= 100 ? 0 : value < 10 ? 2 : 1);
}

/** With at most two digits after the point, and none that say nothing. */
export const plain = (value) => (known(value) ? value.toLocaleString("en-US", { maximumFractionDigits: 2 }) : NOTHING);

/** Of 100. */
export const percent = (value, digits = 1) => (known(value) ? `${decimals(value, digits)}\u00a0%` : NOTHING);

/** Bytes in units of 1024, as everywhere in stillwarm. */
export function bytes(value) {
  if (!known(value)) return NOTHING;
  let unit = 0;
  while (Math.abs(value) >= 1023.95 && unit < 4) {
    value /= 1024;
    unit += 1;
  }
  return `${decimals(value, unit === 0 || value >= 100 ? 0 : 1)}\u00a0${["B", "KB", "MB", "GB", "TB"][unit]}`;
}

/** A duration in seconds: 3.2 ms, 840 ms, 12.4 s, 5 min 20 s, 3 h 12 min, 2 d 4 h. */
export function duration(seconds) {
  if (!known(seconds)) return NOTHING;
  if (seconds === 0) return "0\u00a0s";
  if (seconds < 0.9995) return milliseconds(seconds * 1000);
  if (seconds < 59.95) return `${decimals(seconds, seconds < 9.995 ? 2 : 1)}\u00a0s`;
  const total = Math.round(seconds);
  const [d, h, m, s] = [Math.floor(total / 86400), Math.floor(total / 3600) % 24, Math.floor(total / 60) % 60, total % 60];
  const [large, small] = d ? [`${integer(d)}_d`, `${h}_h`] : h ? [`${h}_h`, `${m}_min`] : [`${m}_min`, `${s}_s`];
  return `${large} ${small}`.replaceAll("_", "\u00a0");
}

/** A duration at an axis: as short as can be. */
export function tick(seconds) {
  if (seconds === 0) return "0";
  const [value, unit] = seconds < 1 ? [seconds * 1000, "ms"] : seconds < 600 ? [seconds, "s"] : [seconds / 60, "min"];
  return `${Number(value.toPrecision(3))}\u00a0${unit}`;
}

function milliseconds(value) {
  if (!known(value)) return NOTHING;
  if (value < 0.0995) return `${decimals(value * 1000, value < 0.00995 ? 1 : 0)}\u00a0µs`;
  return `${decimals(value, value < 9.95 ? 2 : value < 99.95 ? 1 : 0)}\u00a0ms`;
}

export const clock = (at) => time.format(at);

/** "1 entry", "1,204 entries". */
export const counted = (n, one, many) => `${integer(n)} ${n === 1 ? one : many}`;

/** "skipped_refreshes" as "Skipped refreshes". */
export const words = (name) => (name.charAt(0).toUpperCase() + name.slice(1)).replaceAll("_", " ");

/** Foreign text with what cannot be seen, or turns the reading direction, made visible. */
export const visible = (value) =>
  String(value).replace(
    /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
