// Talks to the management endpoints, which are beside this file. Knows the token; knows nothing of the page.

const BASE = new URL(".", import.meta.url);
const TOKEN = "stillwarm-token";
const DEADLINE = 10_000;

/** What went wrong, as `kind`: unauthorized, forbidden, unreachable (no useful answer), refused (the server said no). */
export class ApiError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

let memory = null; // when the browser refuses storage, the token lives as long as the page

export const token = {
  get() {
    try {
      return sessionStorage.getItem(TOKEN) ?? memory;
    } catch {
      return memory;
    }
  },
  set(value) {
    memory = value;
    try {
      if (value === null) sessionStorage.removeItem(TOKEN);
      else sessionStorage.setItem(TOKEN, value);
    } catch {
      // kept in memory only
    }
  },
};

async function call(path, options, accepted) {
  const headers = { Accept: "application/json", ...options.headers };
  const held = token.get();
  if (held !== null) headers.Authorization = `Bearer ${held}`;
  let response;
  try {
    response = await fetch(new URL(path, BASE), {
      ...options,
      headers,
      cache: "no-store",
      credentials: "same-origin",
      redirect: "manual", // a log-in page of a proxy is no answer
      signal: AbortSignal.timeout(DEADLINE),
    });
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new ApiError("unreachable", late ? `No answer within ${DEADLINE / 1000} s.` : "The server does not answer.");
  }
  if (response.type === "opaqueredirect") throw new ApiError("unauthorized", "The server asks for a sign-in elsewhere.");
  const body = await response.json().catch(() => null);
  const said = body?.message ?? body?.detail ?? body?.error;
  const message = typeof said === "string" ? said : `The server answered ${response.status}.`;
  if (response.status === 401) throw new ApiError("unauthorized", message);
  if (response.status === 403) throw new ApiError("forbidden", message);
  if ((response.ok || accepted.includes(response.status)) && body !== null) return body;
  const refused = response.status >= 400 && response.status < 500 && options.method === "POST";
  throw new ApiError(refused ? "refused" : "unreachable", message);
}

export const get = (path, accepted = []) => call(path, { method: "GET" }, accepted);

export const post = (path, body = {}) =>
  call(
    path,
    { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", "X-Stillwarm": "1" } },
    [],
  );
