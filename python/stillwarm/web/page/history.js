// Turns polled counts into rates over time. Knows no elements.
//
// A worker that restarted, or another worker that answered, has lower counts than the sample before: then there is no
// rate for that interval, and the line has a gap there. So it has after a pause.

export const WINDOW = 300_000;
const GAP = 12_000;

const COUNTS = ["hits", "stale_hits", "misses", "joined", "seconds_saved"];
const GROWING = ["hits", "misses"]; // what was saved is an estimate, and may be corrected downwards

export class History {
  points = [];
  #last = null;

  /** Takes the counts of a poll at time `at` (milliseconds). */
  add(stats, at) {
    const before = this.#last;
    this.#last = { at, counts: Object.fromEntries(COUNTS.map((name) => [name, stats[name] ?? 0])) };
    if (before === null || at <= before.at) return;
    const seconds = (at - before.at) / 1000;
    const delta = {};
    for (const name of COUNTS) delta[name] = this.#last.counts[name] - before.counts[name];
    if (GROWING.some((name) => delta[name] < 0)) {
      this.points.push({ at, broken: true });
    } else {
      const served = delta.hits; // the stale ones are among them
      const stale = Math.min(Math.max(0, delta.stale_hits), served);
      const requests = served + delta.misses;
      const joined = Math.min(Math.max(0, delta.joined), delta.misses);
      this.points.push({
        at,
        broken: at - before.at > GAP,
        served,
        requests,
        hitRate: requests ? (100 * served) / requests : null,
        perSecond: requests / seconds,
        fresh: (served - stale) / seconds,
        stale: stale / seconds,
        joined: joined / seconds,
        loaded: (delta.misses - joined) / seconds,
        saved: Math.max(0, delta.seconds_saved) / seconds,
      });
    }
    while (this.points.length && this.points[0].at < at - WINDOW) this.points.shift();
  }

  /** When the last counts came, or null. */
  get seenAt() {
    return this.#last?.at ?? null;
  }

  get latest() {
    return this.points.at(-1) ?? null;
  }

  /** The hit rate of the last `milliseconds`, or null when nothing was asked for. */
  recentHitRate(milliseconds) {
    const from = (this.latest?.at ?? 0) - milliseconds;
    let served = 0;
    let requests = 0;
    for (const point of this.points) {
      if (point.at <= from || point.requests === undefined) continue;
      served += point.served;
      requests += point.requests;
    }
    return requests ? (100 * served) / requests : null;
  }
}
