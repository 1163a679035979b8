// Verdicts, keys and statements of idempotency for Python.
//
// Thread rule: under the GIL; pure functions.
// Refuses to know: stores (_idempotency.py) and HTTP (web/idempotent.py).
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "bindings/bind.hpp"
#include "core/antidup/idempotency.hpp"

namespace pb = pybind11;

namespace stillwarm {
namespace {

const char* text_of(IdempotencyVerdict verdict) noexcept {
  switch (verdict) {
    case IdempotencyVerdict::kRun:
      return "run";
    case IdempotencyVerdict::kReplay:
      return "replay";
    case IdempotencyVerdict::kUnkept:
      return "unkept";
    case IdempotencyVerdict::kRunning:
      return "running";
    case IdempotencyVerdict::kMismatch:
      return "mismatch";
    case IdempotencyVerdict::kUnknown:
      break;
  }
  return "unknown";
}

RecordState state_of(std::string_view text) {
  if (text == "claimed") return RecordState::kClaimed;
  if (text == "done") return RecordState::kDone;
  if (text == "unkept") return RecordState::kUnkept;
  throw pb::value_error("state: accepted: claimed, done, unkept");
}

// (state, fingerprint, claimed_at, lease_until, expires_at)
using RecordRow = std::tuple<std::string, std::string, Nanos, Nanos, Nanos>;

std::tuple<std::string, std::int64_t> judged(const std::optional<RecordRow>& found, std::string_view fingerprint,
                                             Nanos now, bool rerun, bool lost) {
  std::optional<IdempotencyRecord> record;
  if (found) {
    const auto& [state, theirs, claimed_at, lease_until, expires_at] = *found;
    record = IdempotencyRecord{state_of(state), theirs, claimed_at, lease_until, expires_at};
  }
  const OnCrash on_crash = rerun ? OnCrash::kRerun : OnCrash::kUnknown;
  const IdempotencyAnswer answer =
      lost ? judge_lost(record, fingerprint, now, on_crash) : judge(record, fingerprint, now, on_crash);
  return {text_of(answer.verdict), answer.retry_after};
}

std::tuple<std::string, std::optional<std::string>> parsed_key(std::string_view field) {
  ParsedKey key = parse_idempotency_key(field);
  if (key.error == nullptr) return {std::move(key.key), std::nullopt};
  return {"", key.error};
}

pb::dict statements(const std::string& schema) {
  const IdempotencySql sql(schema);
  pb::dict all;
  all["claim"] = sql.claim;
  all["lock"] = sql.lock;
  all["finish"] = sql.finish;
  all["renew"] = sql.renew;
  all["release"] = sql.release;
  all["forget"] = sql.forget;
  all["unknown"] = sql.unknown;
  all["purge"] = sql.purge;
  return all;
}

}  // namespace

void bind_idempotency(pb::module_& m) {
  m.def("judge_idempotency", &judged, pb::arg("found"), pb::arg("fingerprint"), pb::arg("now"), pb::arg("rerun"),
        pb::arg("lost"), pb::pos_only());
  m.def("parse_idempotency_key", &parsed_key, pb::arg("field"), pb::pos_only());
  m.def("idempotency_sql", &statements, pb::arg("schema"), pb::pos_only());
}

}  // namespace stillwarm
