// Verdicts, keys and statements of idempotency. Thread rule and what it refuses to know: see the header.
#include "core/antidup/idempotency.hpp"

#include <algorithm>

namespace stillwarm {
namespace {

constexpr std::int64_t kLongestWait = 30;

bool is_visible(char c) noexcept { return c > 0x20 && c < 0x7f; }

std::string_view trimmed(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// CAST, not `::`, and no colon, percent sign or brace: drivers would take them for parameters of theirs.
std::string in_ms(const std::string& parameter) {
  return "CAST(CAST(" + parameter + " AS text) AS float8) * interval '1 ms'";
}

std::string text(const std::string& parameter) { return "CAST(" + parameter + " AS text)"; }

const std::string kNow = "clock_timestamp()";

}  // namespace

IdempotencyAnswer judge(const std::optional<IdempotencyRecord>& found, std::string_view fingerprint, Nanos now,
                        OnCrash on_crash) noexcept {
  using enum IdempotencyVerdict;
  if (!found) return {kRun};
  const bool claimed = found->state == RecordState::kClaimed;
  const bool held = claimed && now < found->lease_until;
  if (now >= found->expires_at && !held) return {kRun};  // an owner that still runs is never overtaken
  if (found->fingerprint != fingerprint) return {kMismatch};
  if (found->state == RecordState::kDone) return {kReplay};
  if (found->state == RecordState::kUnkept) return {kUnkept};
  if (!held) return {on_crash == OnCrash::kRerun ? kRun : kUnknown};
  return {kRunning, std::clamp<std::int64_t>((now - found->claimed_at) / kSecond, 1, kLongestWait)};
}

IdempotencyAnswer judge_lost(const std::optional<IdempotencyRecord>& found, std::string_view fingerprint, Nanos now,
                             OnCrash on_crash) noexcept {
  const IdempotencyAnswer answer = judge(found, fingerprint, now, on_crash);
  if (answer.verdict == IdempotencyVerdict::kRun) return {IdempotencyVerdict::kRunning, 1};
  return answer;
}

ParsedKey parse_idempotency_key(std::string_view field) {
  ParsedKey parsed;
  field = trimmed(field);
  if (field.empty()) return {"", "it is empty"};
  if (field.front() == '"') {
    field.remove_prefix(1);
    for (bool closed = false; !closed;) {
      if (field.empty()) return {"", "the closing quote is missing"};
      char c = field.front();
      field.remove_prefix(1);
      if (c == '"') {
        closed = true;
        continue;
      }
      if (c == '\\') {
        if (field.empty() || (field.front() != '"' && field.front() != '\\')) {
          return {"", "a backslash stands before something else than a quote or a backslash"};
        }
        c = field.front();
        field.remove_prefix(1);
      } else if (c != ' ' && !is_visible(c)) {
        return {"", "a character is not printable ASCII"};
      }
      parsed.key.push_back(c);
    }
    if (!trimmed(field).empty()) return {"", "something follows the closing quote"};
    if (parsed.key.empty()) return {"", "it is empty"};
  } else {
    for (const char c : field) {
      if (!is_visible(c) || c == '"' || c == ',' || c == ';' || c == '\\') {
        return {"", "a bare key has only visible ASCII without quote, comma, semicolon and backslash"};
      }
    }
    parsed.key = field;
  }
  if (parsed.key.size() > kLongestKey) return {"", "it is longer than 255 characters"};
  return parsed;
}

IdempotencySql::IdempotencySql(const std::string& schema) {
  const std::string table = schema + ".idempotency";
  const std::string mine = "namespace = " + text("$1") + " AND key = " + text("$2");
  const std::string owned = mine + " AND owner = " + text("$3") + " AND state = 'claimed'";
  const auto epoch = [](const std::string& of) { return "extract(epoch FROM " + of + ")"; };
  claim = "WITH won AS (INSERT INTO " + table +
          " AS r (namespace, key, route, fingerprint, witness, owner, state, created_at, lease_until, expires_at) "
          "VALUES (" +
          text("$1") + ", " + text("$2") + ", " + text("$3") + ", " + text("$4") + ", " + text("$5") + ", " +
          text("$6") + ", 'claimed', " + kNow + ", " + kNow + " + " + in_ms("$7") + ", " + kNow + " + greatest(" +
          in_ms("$7") + ", " + in_ms("$8") +
          ")) ON CONFLICT (namespace, key) DO UPDATE SET route = excluded.route, fingerprint = excluded.fingerprint, "
          "witness = excluded.witness, owner = excluded.owner, state = excluded.state, created_at = "
          "excluded.created_at, lease_until = excluded.lease_until, expires_at = excluded.expires_at, status = NULL, "
          "headers = NULL, body = NULL WHERE (r.owner = excluded.owner AND r.state = 'claimed') OR (r.expires_at <= " +
          kNow + " AND (r.state <> 'claimed' OR r.lease_until <= " + kNow + ")) OR (CAST(" + text("$9") +
          " AS boolean) AND r.state = 'claimed' AND r.lease_until <= " + kNow +
          " AND r.fingerprint = excluded.fingerprint) RETURNING 1) "
          "SELECT CAST(json_build_object('won', true, 'xid', CAST(txid_current() AS text)) AS text) FROM won "
          "UNION ALL SELECT CAST(json_build_object('won', false, 'state', state, 'fingerprint', fingerprint, "
          "'witness', witness, 'status', status, 'headers', headers, 'body', encode(body, 'base64'), 'claimed_at', " +
          epoch("created_at") + ", 'lease_until', " + epoch("lease_until") + ", 'expires_at', " + epoch("expires_at") +
          ", 'now', " + epoch(kNow) + ") AS text) FROM " + table + " WHERE " + mine +
          " AND NOT EXISTS (SELECT FROM won)";
  lock = "SELECT CASE WHEN pg_try_advisory_xact_lock(hashtextextended(" + text("$1") + " || '/' || " + text("$2") +
         ", 0)) THEN CAST(txid_current() AS text) ELSE '' END";
  finish = "UPDATE " + table + " SET state = " + text("$4") + ", status = CAST(" + text("$5") +
           " AS integer), headers = " + text("$6") + ", body = decode(" + text("$7") +
           ", 'base64'), expires_at = " + kNow + " + " + in_ms("$8") + " WHERE " + owned + " RETURNING 'done'";
  renew = "WITH kept AS (UPDATE " + table + " SET lease_until = " + kNow + " + " + in_ms("$3") +
          ", expires_at = greatest(expires_at, " + kNow + " + " + in_ms("$3") + ") WHERE namespace = " + text("$1") +
          " AND key = ANY (CAST(" + text("$2") + " AS text[])) AND owner = ANY (CAST(" + text("$4") +
          " AS text[])) AND state = 'claimed' RETURNING 1) SELECT CAST(count(*) AS text) FROM kept";
  release = "DELETE FROM " + table + " WHERE " + owned + " RETURNING 'gone'";
  forget = "DELETE FROM " + table + " WHERE " + mine + " AND state = 'claimed' AND lease_until <= " + kNow +
           " RETURNING 'gone'";
  // No body and no header is read. A key that has expired is free, whatever became of its request.
  unknown = "SELECT CAST(json_build_object('record', key, 'route', route, 'by_cookies', witness <> '', 'age', " +
            epoch(kNow + " - created_at") + ", 'unknown_for', " + epoch(kNow + " - lease_until") + ", 'expires_in', " +
            epoch("expires_at - " + kNow) + ") AS text) FROM " + table + " WHERE namespace = " + text("$1") +
            " AND key = coalesce(" + text("$3") + ", key) AND state = 'claimed' AND lease_until <= " + kNow +
            " AND expires_at > " + kNow + " ORDER BY created_at, key LIMIT CAST(" + text("$2") + " AS integer)";
  purge = "WITH old AS (SELECT key FROM " + table + " WHERE namespace = " + text("$1") + " AND expires_at <= " + kNow +
          " AND (state <> 'claimed' OR lease_until <= " + kNow + ") ORDER BY key LIMIT CAST(" + text("$2") +
          " AS integer) FOR UPDATE SKIP LOCKED), gone AS (DELETE FROM " + table +
          " t USING old WHERE t.namespace = " + text("$1") +
          " AND t.key = old.key RETURNING 1) SELECT CAST(count(*) AS text) FROM gone";
}

}  // namespace stillwarm
