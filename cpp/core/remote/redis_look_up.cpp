// Look-ups of the Redis tier: what an entry's text says, and what the marks say of it. See redis_work.hpp.
#include <algorithm>
#include <charconv>
#include <optional>

#include "core/remote/redis_tier.hpp"
#include "core/remote/redis_work.hpp"

namespace stillwarm {

namespace {

long long number_of(std::string_view digits) noexcept {
  long long number = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return number;
}

// From now to a moment, both in ms of the server's clock; `most` is how long it was when it was written.
Nanos until(long long moment, long long now, long long most) noexcept {
  if (moment >= RedisHead::kNever) return kForever;
  return std::clamp(moment - now, -RedisHead::kLongest, std::min(most, RedisHead::kLongest)) * 1'000'000;
}

bool is_number(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// An entry's text, taken apart; nothing: it was written by somebody else.
struct ParsedEntry {
  std::string_view incarnation, version, tags, payload;
  long long born = 0, fresh_until = 0, fresh_for = 0;

  static std::optional<ParsedEntry> of(std::string_view text) noexcept {
    using H = RedisHead;
    if (text.size() < H::kSize || text[0] != '1') return std::nullopt;
    if (!is_number(text.substr(H::kBorn, 12)) || !is_number(text.substr(H::kFreshUntil, H::kSize - H::kFreshUntil))) {
      return std::nullopt;
    }
    ParsedEntry s;
    s.incarnation = text.substr(H::kIncarnation, 8);
    s.born = number_of(text.substr(H::kBorn, 12));
    s.version = text.substr(H::kVersion, 12);
    s.fresh_until = number_of(text.substr(H::kFreshUntil, 14));
    s.fresh_for = number_of(text.substr(H::kFreshFor, 14));
    const auto tags = static_cast<std::size_t>(number_of(text.substr(H::kTags, 5)));
    if (tags > text.size() - H::kSize) return std::nullopt;
    s.tags = text.substr(H::kSize, tags);
    s.payload = text.substr(H::kSize + tags);
    return s;
  }
};

std::vector<std::string> tags_of(std::string_view text) {
  std::vector<std::string> tags;
  while (!text.empty()) {
    const auto colon = text.find(':');
    if (colon == std::string_view::npos) break;
    const auto size = static_cast<std::size_t>(number_of(text.substr(0, colon)));
    tags.emplace_back(text.substr(colon + 1, size));
    text.remove_prefix(std::min(text.size(), colon + 1 + size));
  }
  return tags;
}

}  // namespace

// What the marks were at a look-up.
struct RedisLookUp::Marks {
  struct OfType {
    long long hard = 0, soft = 0, soft_at = 0;
  };
  std::string_view incarnation;
  std::string_view number;
  long long floor = 0, tagged = 0;
  OfType all;
  std::vector<OfType> types;
};

RedisLookUp::Marks RedisLookUp::read_marks(const RedisReply& reply) const {
  const auto number = [&](std::size_t i) { return reply.at(i).nil() ? 0 : number_of(reply.at(i).text()); };
  Marks marks;
  if (!reply.at(0).nil()) {
    marks.incarnation = reply.at(0).text();
    marks.number = reply.at(1).text();
  }
  marks.floor = number(2);
  marks.tagged = number(3);
  marks.all = {number(4), number(5), number(6)};
  marks.types.reserve(types_.size());
  for (std::size_t i = 0; i < types_.size(); ++i) {
    marks.types.push_back({number(7 + 3 * i), number(8 + 3 * i), number(9 + 3 * i)});
  }
  return marks;
}

RedisLookUp::RedisLookUp(RedisTier& tier, std::span<Request* const> batch) : tier_(tier), batch_(batch) {
  for (Request* r : batch) {
    auto& l = static_cast<LookUp&>(*r);
    l.found.assign(l.keys.size(), {});
    for (std::size_t i = 0; i < l.keys.size(); ++i) {
      entries_.push_back(tier.names().entry(l.types[i], l.keys[i]));
      if (std::find(types_.begin(), types_.end(), l.types[i]) == types_.end()) types_.emplace_back(l.types[i]);
    }
  }
  for (Request* r : batch) {
    auto& l = static_cast<LookUp&>(*r);
    l.taken = false;
    if (l.lease.empty() || l.keys.size() != 1) continue;
    const RedisNames& names = tier.names();
    RedisCall call = tier.call(RedisScript::kTake, {names.entry(l.types[0], l.keys[0]), names.lease(l.lease)});
    call.arguments.insert(call.arguments.end(),
                          {l.types[0], l.owner, std::to_string(std::max<Nanos>(1, l.lease_age / 1'000'000))});
    leases_.emplace_back(&l, std::move(call));
  }
}

std::size_t RedisLookUp::ask(RedisSession& session) {
  RedisLink& link = session.link();
  // First: what happens to an entry after it was read is younger than the moment that is told.
  session.append_marks(tier_.names().marks, types_);
  asked_ = RedisClock::own_now();
  asked_of_ = &session;
  clock_ = session.clock();
  asks_time_ = !clock_.knows(asked_);
  if (asks_time_) link.append({"TIME"});
  if (entries_.empty()) return before_leases();
  if (entries_.size() == 1) {
    link.append({"GET", entries_.front()});
  } else {
    std::vector<std::string_view> words = {"MGET"};
    words.insert(words.end(), entries_.begin(), entries_.end());
    link.append(words);
  }
  for (const auto& [request, call] : leases_) session.append(call);
  return before_leases() + leases_.size();
}

// Replies: marks, time, entries.
std::size_t RedisLookUp::before_leases() const noexcept {
  return 1 + static_cast<std::size_t>(asks_time_) + static_cast<std::size_t>(!entries_.empty());
}

void RedisLookUp::take(RedisSession& session, std::span<const OwnedReply> replies) {
  const std::size_t own = before_leases();
  for (const auto& reply : replies.first(own)) expect_ok(reply);
  for (std::size_t i = 0; i < leases_.size(); ++i) {
    const RedisReply& taken = replies[own + i];
    leases_[i].first->taken = !taken.error() && taken.integer() == 1;
  }
  const Marks marks = read_marks(replies[0]);
  std::string moment;
  if (marks.incarnation.empty()) {  // a server without data: the first to come gives it a name
    RedisCall first = tier_.call(RedisScript::kPoll);
    first.arguments.insert(first.arguments.end(), {"", "0"});
    const OwnedReply named = session.run(first);
    moment = redis_moment(named.at(1).text(), named.at(0).text());
  } else {
    moment = redis_moment(marks.number, marks.incarnation);
  }
  const Nanos arrived = RedisClock::own_now();
  if (asks_time_) {
    const RedisReply& time = replies[1];
    clock_.told(time.at(0).integer() * 1'000'000 + time.at(1).integer(), asked_, arrived);
    if (&session == asked_of_) session.clock() = clock_;
  }
  const long long now = clock_.at(arrived);
  std::size_t n = 0;
  for (Request* r : batch_) {
    auto& l = static_cast<LookUp&>(*r);
    l.seen = moment;
    for (std::size_t i = 0; i < l.keys.size(); ++i, ++n) {
      const RedisReply& values = replies[own - 1];
      const RedisReply value = entries_.size() == 1 ? values : values.at(n);
      if (value.nil()) continue;
      const auto type = std::find(types_.begin(), types_.end(), l.types[i]) - types_.begin();
      judge(session, l.found[i], value.text(), marks, static_cast<std::size_t>(type), now, entries_[n]);
    }
  }
  tier_.inbox()->know(std::move(moment));
}

void RedisLookUp::judge(RedisSession& session, Found& found, std::string_view value, const Marks& marks,
                        std::size_t type, long long now, std::string_view entry) {
  const auto stored = ParsedEntry::of(value);
  found.has_payload = true;
  if (!stored) {  // somebody else's: whoever opens it says what is wrong with it
    found.found = true;
    found.payload = value;
    return;
  }
  if (marks.incarnation.empty() || stored->incarnation != marks.incarnation) return;
  const Marks::OfType& of_type = marks.types[type];
  found.dead = marks.all.hard > stored->born || of_type.hard > stored->born;
  long long fresh_until = stored->fresh_until;
  bool stale = false;  // by a mark, whatever the clocks say
  const auto soften = [&](long long since) {
    stale = true;
    fresh_until = std::min(fresh_until, since);
  };
  if (marks.all.soft > stored->born) soften(marks.all.soft_at);
  if (of_type.soft > stored->born) soften(of_type.soft_at);
  if (!found.dead && !stored->tags.empty()) {
    found.dead = marks.floor > stored->born;
    if (!found.dead && marks.tagged > stored->born) {
      RedisCall asks = tier_.call(RedisScript::kJudge, {std::string(entry)});
      asks.arguments.emplace_back(types_[type]);
      const OwnedReply said = session.run(asks);
      // Another version was written meanwhile: that this one was valid a moment ago is not known any more.
      found.dead = said.at(0).text() != stored->version || said.at(1).integer() != 0;
      if (!found.dead && !said.at(2).text().empty()) soften(said.at(2).integer());
    }
  }
  if (found.dead) return;
  found.found = true;
  tier_.note_entry(entry, stored->version);
  found.payload = stored->payload;
  found.fresh_left = until(fresh_until, now, stored->fresh_for);
  if (stale) found.fresh_left = std::min<Nanos>(found.fresh_left, 0);
  found.kept_left = found.fresh_left;
  found.version = stored->version;
  found.tags = tags_of(stored->tags);
}

}  // namespace stillwarm
