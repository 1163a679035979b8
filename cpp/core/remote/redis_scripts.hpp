// The scripts of the Redis tier: constant text with KEYS and ARGV, and the layout of what they read and write.
//
// Thread rule: constants.
// Refuses to know: connections, requests. Names of keys are made by RedisNames.
//
// A namespace is one bucket (on a cluster many). Its keys, all with one hash tag:
//
//   m        hash    the marks, and what counts them:
//                      i             incarnation: random, made with the hash. An entry of another one is no entry
//                      r             the run of the server that it was made in, see "life of a server"
//                      n             the counter: every invalidation and every set takes the next number
//                      all  type:T   number of the last hard mark;  ~all ~type:T  of the last soft one, @... its time
//                      k0 .. k4095   number of the last set, delete or invalidation of a key with that hash (a fence)
//                      p             number of the last pattern (a fence)
//                      w             number of the last set that was owed (a fence, for loads alone: thousands of them
//                                    come at once, and share stripes)
//                      f             floor: what is tagged and born before it is invalid
//                      t             number of the last mark of a tag
//                      g c1 c2 s     the younger generation of tag marks, the fields of both, where the younger began
//                      most          fields of a generation that is full; absent: 32,768
//                      types         names of the types that were stored, one per line
//   t1 t2    hashes  marks of tags in two generations: hTAG ~TAG @TAG. The older is dropped when the younger is full
//   l        list    the last 10,000 messages, one per number of n: origin NUL softness name
//   e:T:K    string  an entry: head, tags, payload
//   x:NAME   string  a lease: its owner
//   h        zset    hits by entry, the 10,000 most used;  f:PROCESS  the last batch that was counted
//   u        string  who purges, for a minute
//   c        channel "something happened"
//
// The fence (I8). A look-up returns (i, n), read before the entry: the moment at which a load that follows begins. An
// entry keeps the moment of its load as `born`. A mark concerns it if its number is above `born`. Redis may evict any
// key: without `m` everything is another incarnation's; a hash of tag marks that lacks fields invalidates what is
// tagged; a list that is too short says "all" to whoever polls; an entry is simply not there. Nothing comes back.
//
// Life of a server. One that was started again with the data of before (a snapshot, a log that lacks the last second),
// and a replica that became the master, give numbers away a second time, and have entries whose marks are lost: for all
// that anybody knows, each was invalidated. So every script is told the run id of the server it is sent to. Where the
// marks were made in another run, there is a new incarnation, and what was there before is not there any more. So it is
// where the run id cannot be known (no right to INFO) and a poll has seen more than the server knows of.
//
// The head of an entry, 66 bytes of text:
//   version of the layout "1" | incarnation 8 | born 12 | version 12 | fresh until 14 | fresh for 14 | bytes of tags 5
// Times are ms of the server's clock; 99999999999999 is never. Tags are written LENGTH:TAG one after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace stillwarm {

struct RedisHead {
  static constexpr std::size_t kSize = 66;
  static constexpr std::size_t kIncarnation = 1, kBorn = 9, kVersion = 21, kFreshUntil = 33, kFreshFor = 47, kTags = 61;
  static constexpr long long kNever = 99'999'999'999'999;
  static constexpr long long kLongest = 100LL * 365 * 86'400'000;  // ms: a clock that jumped cannot promise more
};

enum class RedisScript : std::uint8_t {
  // KEYS marks... ARGV i, n of the last poll ("" before the first) -> (i, n, "ok" | "all", message...)
  kPoll,
  // Whether marks of tags concern an entry. KEYS marks..., entry. ARGV type -> (version, dead, since when stale or "")
  kJudge,
  // KEYS marks..., entry, lease or none. ARGV "load" "set" "add" "swap", born i, born n, stripe, type, type as in
  // names, key, version,
  // expected version, fresh for, keep for (ms, -1: for ever), origin, channel, bytes of tags, tags and payload, owner
  // of the lease, tag...
  // -> (stored, i, n)
  kStore,
  // KEYS marks... ARGV origin, channel, then for each: name, softness, stripe, key as in names -> (i, n, count...)
  kInvalidate,
  // What a pattern matched. KEYS marks..., entry... ARGV softness, number of the pattern -> how many were older
  kMatch,
  // Whether a message has this origin. KEYS marks... ARGV origin, i, n before it -> 1, 0; -1: nobody knows
  kDone,
  // Takes a lease where there is no entry. KEYS marks..., entry, lease. ARGV type, owner, age in ms -> 1 taken | 0
  kTake,
  // KEYS lease... ARGV age in ms, owner...
  kRenew,
  // KEYS lease. ARGV owner
  kGiveBack,
  // KEYS h, f:PROCESS. ARGV batch, then member and hits of each
  kFlush,
  // What entries are, and without those that are dead. KEYS marks..., entry... ARGV "look" "purge", type of each
  // -> state, bytes of each: 0 is not there, 1 live, 2 stale, 3 dead, 4 not of this package
  kSurvey,
};
inline constexpr std::size_t kRedisScripts = 11;

// "marks..." above: m l t1 t2, and ARGV begins with a new incarnation and the server's run id in one word, and the
// beginning of an entry's name. From Redis 7 on a script that frees room says so, and runs although the server is full.
// The others say nothing, and so are answered by a server that takes no writes as long as they only read.
std::string text_of(RedisScript script, bool says_flags);
bool is_about_marks(RedisScript script) noexcept;

}  // namespace stillwarm
