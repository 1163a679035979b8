// Idempotency keys: what a request with a key does, given the record of that key, and the statements of the records.
//
// Thread rule: pure functions and immutable texts, any thread.
// Refuses to know: HTTP statuses, connections, clocks (the caller says what time it is), and how a fingerprint is made.
//
//   absent --claim--> claimed(owner, lease) --finish--> done(answer) --expiry--> absent
//                        |  renew: the lease goes on
//                        |  release: nothing was done, or the caller chose "at least once" --> absent
//                        `- the lease ended: the owner is gone and its effect unknown; rerun by choice only
//
// Whoever does not hold the claim never runs. The verdict "run" is the claim's own statement (or, in memory, its lock);
// a record that looks free in the snapshot of a claim that lost was taken by another since, and is running.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/entry.hpp"

namespace stillwarm {

enum class OnCrash : std::uint8_t { kUnknown, kRerun };

enum class RecordState : std::uint8_t {
  kClaimed,
  kDone,    // its answer is kept
  kUnkept,  // executed, and its answer was too large to keep, or streamed
};

struct IdempotencyRecord {
  RecordState state = RecordState::kClaimed;
  std::string_view fingerprint;
  Nanos claimed_at = 0;  // all by one clock: the server's, or in memory the process's
  Nanos lease_until = 0;
  Nanos expires_at = 0;
};

enum class IdempotencyVerdict : std::uint8_t {
  kRun,       // nobody did, or nobody may know any more
  kReplay,    // executed: give the kept answer
  kUnkept,    // executed: there is no answer to give
  kRunning,   // wait and ask again
  kMismatch,  // the key was used for something else
  kUnknown,   // its owner is gone in mid-execution
};

struct IdempotencyAnswer {
  IdempotencyVerdict verdict = IdempotencyVerdict::kRun;
  std::int64_t retry_after = 0;  // s, for kRunning: as long as it has run so far, 1 to 30
};

// What becomes of a request that finds this record, or none. kRun: it may claim the key.
IdempotencyAnswer judge(const std::optional<IdempotencyRecord>& found, std::string_view fingerprint, Nanos now,
                        OnCrash on_crash) noexcept;

// The same for one whose claim lost: it never runs.
IdempotencyAnswer judge_lost(const std::optional<IdempotencyRecord>& found, std::string_view fingerprint, Nanos now,
                             OnCrash on_crash) noexcept;

struct ParsedKey {
  std::string key;
  const char* error = nullptr;  // what is wrong with the field, or none
};

// The value of an Idempotency-Key field: a string of structured fields (RFC 9651, 3.3.3), as the draft wants it, or the
// bare text that most clients send. "a" and a are one key.
inline constexpr std::size_t kLongestKey = 255;
ParsedKey parse_idempotency_key(std::string_view field);

// Statements of `<schema>.idempotency`. Parameters are texts, so that any driver can pass them; $1 is the namespace and
// $2 the key's hash. Each that returns something returns one column of text.
struct IdempotencySql {
  explicit IdempotencySql(const std::string& schema);  // quoted

  // One statement: {"won": true}, or the record that is in the way, or no row: another claimed since the snapshot.
  // $3 route, $4 fingerprint, $5 witness, $6 owner, $7 lease in ms, $8 ttl in ms, $9 rerun. An owner that asks again,
  // because the answer to its first claim was lost, wins again.
  std::string claim;
  std::string lock;     // the number of this transaction if it may claim, else an empty text
  std::string finish;   // the owner's claim becomes done; $3 owner, $4 state, $5 status, $6 headers, $7 body, $8 ttl
  std::string renew;    // $2 keys (text[]), $3 lease in ms, $4 owners (text[])
  std::string release;  // the owner's claim goes; $3 owner
  std::string forget;   // an operator frees a key whose outcome is unknown: not one that is running or done
  // For an operator, the oldest first: {"record": the hash, "route", ...}. $2 how many, $3 the hash of one, or NULL.
  std::string unknown;
  std::string purge;  // $2 batch
};

}  // namespace stillwarm
