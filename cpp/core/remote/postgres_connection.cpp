// One connection of the PostgreSQL tier. Thread rule and what it refuses to know: see postgres_tier.hpp.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <map>
#include <random>
#include <thread>

#include "core/base/clock.hpp"
#include "core/remote/glob.hpp"
#include "core/remote/postgres_text.hpp"
#include "core/remote/postgres_tier.hpp"
#include "core/remote/watchdog.hpp"

namespace stillwarm {

namespace {

constexpr Nanos kNamePause = 1'000'000'000;  // a server that only reads for now is not asked all the time

// The snapshot of a statement, in which what it wrote itself is visible.
std::string with_own(std::string_view snapshot, std::string_view version) {
  constexpr std::uint64_t kMostBetween = 64;
  std::uint64_t own = 0;
  std::from_chars(version.data(), version.data() + version.size(), own);
  const std::uint64_t xmax = xmax_of(snapshot);
  if (xmax == 0 || own < xmax || own - xmax > kMostBetween) return std::string(snapshot);
  const auto first = snapshot.find(':'), second = snapshot.find(':', first + 1);
  std::string text(snapshot.substr(0, first));
  text += ':' + std::to_string(own + 1) + ':';
  text += snapshot.substr(second + 1);
  for (std::uint64_t other = xmax; other < own; ++other) {
    if (text.back() != ':') text += ',';
    text += std::to_string(other);
  }
  return text;
}

// Jittered: those that met do not meet again.
void step_aside(int attempt) {
  thread_local std::minstd_rand random(static_cast<unsigned>(steady_now()));
  std::this_thread::sleep_for(std::chrono::microseconds(random() % (5'000U << static_cast<unsigned>(attempt))));
}

bool is_sent(const Request& r) { return r.kind != Request::Kind::kQuery || static_cast<const Query&>(r).sent; }

}  // namespace

bool PostgresConnection::serve(std::span<Request* const> batch) {
  const Nanos began = steady_now();
  for (int attempt = 0;; ++attempt) {
    try {
      perform(batch);
      tier_->works();
      return link_->usable();
    } catch (const TierFailure& failure) {
      TierError error = failure.error;
      if (is_missing_table(error) && batch.front()->kind != Request::Kind::kQuery) {
        try {
          if (attempt == 0 && tier_->set_up(began)) continue;
        } catch (const TierFailure& second) {
          error = second.error;
        }
      }
      if (is_collision(error) && attempt < 3) {
        step_aside(attempt);
        continue;
      }
      if (batch.size() > 1 && is_about_data(error) && link_->usable()) {  // the others get what they asked for
        const std::size_t half = batch.size() / 2;
        const bool first = serve(batch.first(half));
        if (first) return serve(batch.subspan(half));
        for (Request* r : batch.subspan(half)) r->error = batch.front()->error;
        return false;
      }
      const bool answered = error.fault == TierFault::kRejected || error.fault == TierFault::kTimeout;
      if (!answered && batch.front()->once && is_sent(*batch.front())) error.fault = TierFault::kInDoubt;
      for (Request* r : batch) r->error = error;
      const bool demoted = error.state == "25006" && tier_->wants_writes();
      return answered && link_->usable() && !demoted;
    }
  }
}

bool PostgresConnection::ping() {
  try {
    link_->run(std::string("SELECT 1"));
    return link_->usable();
  } catch (const TierFailure&) {
    return false;
  }
}

void PostgresConnection::perform(std::span<Request* const> batch) {
  // The tables were not there when it was opened. Or a pooler's connection outlived the server behind it: whatever is
  // written in a life has to be numbered above its name.
  const auto kind = batch.front()->kind;
  const bool writes = kind == Request::Kind::kStore || kind == Request::Kind::kInvalidate;
  if ((link_->life.empty() && steady_now() >= name_at_) || (tier_->options().pooler && writes)) {
    std::string now;
    const TierError error = tier_->name_life(*link_, now);
    name_at_ = is_missing_table(error) ? 0 : steady_now() + kNamePause;
  }
  switch (batch.front()->kind) {
    case Request::Kind::kLookUp:
      return look_up(batch);
    case Request::Kind::kStore:
      return store(batch);
    case Request::Kind::kInvalidate:
      return invalidate(batch);
    case Request::Kind::kPoll: {
      std::vector<Poll*> polls;
      for (Request* r : batch) polls.push_back(static_cast<Poll*>(r));
      return tier_->poll(*link_, polls);
    }
    case Request::Kind::kLease:
      return lease(static_cast<Lease&>(*batch.front()));
    case Request::Kind::kFlush:
      return flush(static_cast<Flush&>(*batch.front()));
    case Request::Kind::kQuery:
      return query(static_cast<Query&>(*batch.front()));
  }
}

// A short way for one key. Where it finds nothing several times in a row (a cold cache; marks that are younger than the
// entries) it is left out for a while: it would only come on top.
bool PostgresConnection::look_up_one(const Statement& statement, unsigned& in_vain, LookUp& request) {
  constexpr unsigned kPatience = 4, kPause = 64;
  if (in_vain >= kPatience) {
    in_vain = in_vain >= kPatience + kPause ? 0 : in_vain + 1;
    return false;
  }
  const Rows rows = link_->run(statement, {{tier_->options().namespace_name}, {request.keys[0]}, {request.types[0]}});
  if (rows.size() == 0) {
    ++in_vain;
    return false;
  }
  in_vain = 0;
  request.found.assign(1, {});
  Found& found = request.found[0];
  found.found = true;
  found.has_payload = !rows.null(0, 0);
  if (found.has_payload) found.payload = bytes_of(rows.at(0, 0));
  found.fresh_left = until(rows.at(0, 1), rows.at(0, 2));
  found.kept_left = found.fresh_left;
  if (!rows.null(0, 3)) found.tags = texts_of(rows.at(0, 3));
  return true;
}

void PostgresConnection::look_up(std::span<Request* const> batch) {
  const auto sql = tier_->sql();
  if (batch.size() == 1 && batch.front()->slot == 0) {
    auto& one = static_cast<LookUp&>(*batch.front());
    if (one.keys.size() == 1 && !one.whole) {
      if (look_up_one(sql->look_up_one, in_vain_, one)) return;
      if (look_up_one(sql->look_up_one_named, named_in_vain_, one)) return;
    }
  }
  const std::uint32_t slot = batch.front()->slot;
  std::vector<std::string> keys, types;
  std::vector<Found*> places;
  for (Request* r : batch) {
    auto& l = static_cast<LookUp&>(*r);
    l.found.assign(l.keys.size(), {});
    for (std::size_t i = 0; i < l.keys.size(); ++i) {
      keys.push_back(l.keys[i]);
      types.push_back(l.types[i]);
      places.push_back(&l.found[i]);
    }
  }
  const Rows rows = link_->run(sql->look_up(slot), {{tier_->options().namespace_name},
                                                    {array_of(std::span<const std::string>(keys))},
                                                    {array_of(std::span<const std::string>(types))}});
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::size_t n = 0;
    const auto number = rows.at(i, 0);
    std::from_chars(number.data(), number.data() + number.size(), n);
    if (i == 0) {
      const std::string moment = moment_text(rows.at(0, 1), link_->life);
      for (Request* r : batch) static_cast<LookUp&>(*r).seen = moment;
      tier_->inbox()->know(std::string(moment));
    }
    if (n == 0 || n > places.size() || rows.at(i, 2) != "t") continue;
    Found& found = *places[n - 1];
    found.dead = rows.at(i, 3) == "t";
    found.found = !found.dead;
    if (found.dead) continue;
    found.has_payload = !rows.null(i, 4);
    if (found.has_payload) found.payload = bytes_of(rows.at(i, 4));
    found.fresh_left = nanos(rows.at(i, 5));
    found.kept_left = nanos(rows.at(i, 6));
    found.version = rows.at(i, 7);
    if (!rows.null(i, 8)) found.tags = texts_of(rows.at(i, 8));
    for (std::size_t c = PostgresSql::kLookUpColumns; c < rows.columns(); ++c) {
      found.columns.push_back(rows.text(i, c));
    }
  }
}

// The snapshot that a store is measured by, in the numbers of this life of the server; none: it is refused. What was
// read in an earlier life is stored no more, since marks of now may have its numbers. A set that was owed over the
// crash is: it yields to everything that was written since.
std::optional<std::string> PostgresConnection::born_of(const Store& store) const {
  const Moment born = Moment::of(store.born);
  if (born.snapshot.empty() || born.life == link_->life) return std::string(born.snapshot);
  if (store.mode != Store::Mode::kSet) return std::nullopt;
  return cut_at(born.snapshot, first_of(link_->life));
}

void PostgresConnection::store(std::span<Request* const> batch) {
  // The name may have been made anew by hand.
  const bool asks = std::any_of(batch.begin(), batch.end(), [this](const Request* r) {
    const auto& s = static_cast<const Store&>(*r);
    return !s.born.empty() && Moment::of(s.born).life != link_->life;
  });
  if (asks) {
    std::string now;
    tier_->name_life(*link_, now);
  }
  const auto sql = tier_->sql();
  const auto& head = static_cast<const Store&>(*batch.front());
  using Array = std::vector<std::optional<std::string>>;
  Array keys, types, payloads, tags, borns, fresh, keep;
  std::vector<Array> columns(head.columns.size());
  std::map<std::pair<std::string_view, std::string_view>, Store*> by_key;
  const bool own = sql->table(head.slot) != nullptr && !sql->table(head.slot)->has_payload;
  for (Request* r : batch) {
    auto& s = static_cast<Store&>(*r);
    s.stored = false;
    const auto born = born_of(s);
    if (!born) continue;
    by_key.emplace(std::pair<std::string_view, std::string_view>(s.key, s.type), &s);
    keys.emplace_back(s.key);
    types.emplace_back(s.type);
    payloads.push_back(own ? std::nullopt : std::optional(hex_of(s.payload)));
    tags.push_back(s.tags.empty() ? std::nullopt : std::optional(array_of(std::span<const std::string>(s.tags))));
    borns.push_back(born->empty() ? std::nullopt : born);
    fresh.emplace_back(milliseconds(s.fresh_for));
    keep.emplace_back(milliseconds(s.keep_for));
    for (std::size_t c = 0; c < columns.size(); ++c) columns[c].push_back(s.columns[c]);
  }
  if (keys.empty()) return;
  Parameters parameters = {{tier_->options().namespace_name},
                           array_of(keys),
                           array_of(types),
                           array_of(payloads),
                           array_of(tags),
                           array_of(borns),
                           array_of(fresh),
                           array_of(keep),
                           head.origin.empty() ? tier_->process() : head.origin,
                           head.expected.empty() ? std::nullopt : std::optional(head.expected)};
  for (const Array& column : columns) parameters.emplace_back(array_of(column));
  const Rows rows = link_->run(sql->store(head.slot, head.mode), parameters);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto it = by_key.find({rows.at(i, 0), rows.at(i, 1)});
    if (it == by_key.end()) continue;
    it->second->stored = true;
    it->second->version = rows.at(i, 2);
    if (i == 0) tier_->inbox()->know(moment_text(with_own(rows.at(0, 3), rows.at(0, 2)), link_->life));
  }
}

void PostgresConnection::invalidate(std::span<Request* const> batch) {
  if (batch.front()->variant == Invalidate::kPattern) {
    for (Request* r : batch) match(static_cast<Invalidate&>(*r));
    return;
  }
  std::vector<std::optional<std::string>> names, softs;
  std::vector<std::string> keys;
  for (Request* r : batch) {
    const auto& i = static_cast<const Invalidate&>(*r);
    names.emplace_back(i.name);
    softs.emplace_back(i.soft ? "true" : "false");
    if (!i.soft && i.name.starts_with("key:")) keys.push_back(i.name.substr(4));
  }
  const Rows rows = link_->run(tier_->sql()->invalidate, {{tier_->options().namespace_name},
                                                          array_of(names),
                                                          array_of(softs),
                                                          tier_->process(),
                                                          array_of(std::span<const std::string>(keys))});
  for (Request* r : batch) {
    auto& i = static_cast<Invalidate&>(*r);
    i.count = 0;
    for (std::size_t row = 0; row < rows.size(); ++row) {
      if (i.name.size() > 4 && rows.at(row, 0) == std::string_view(i.name).substr(4)) i.count = 1;
    }
  }
}

void PostgresConnection::match(Invalidate& request) {
  const std::string glob = request.name.substr(Invalidate::kPatternName.size());
  const Rows rows = link_->run(tier_->sql()->invalidate_pattern, {{tier_->options().namespace_name},
                                                                  {glob},
                                                                  {request.soft ? "true" : "false"},
                                                                  {tier_->process()},
                                                                  {regular_expression_of(glob)}});
  const auto count = rows.at(0, 0);
  std::from_chars(count.data(), count.data() + count.size(), request.count);
}

void PostgresConnection::lease(Lease& request) {
  const auto sql = tier_->sql();
  const std::string& where = tier_->options().namespace_name;
  if (request.verb == Lease::Verb::kGiveBack) {
    link_->run(sql->give_back_lease, {{where}, {request.key}, {request.owner}});
    return;
  }
  const Rows rows = link_->run(sql->take_lease, {{where}, {request.key}, {request.owner}, {milliseconds(request.age)}});
  request.taken = rows.size() == 1;
}

void PostgresConnection::flush(Flush& request) {
  std::vector<std::string> hits;
  hits.reserve(request.hits.size());
  for (const std::uint64_t n : request.hits) hits.push_back(std::to_string(n));
  link_->run(tier_->sql()->flush, {{tier_->options().namespace_name},
                                   {tier_->process()},
                                   {std::to_string(request.batch)},
                                   {array_of(std::span<const std::string>(request.keys))},
                                   {array_of(std::span<const std::string>(hits))},
                                   {array_of(std::span<const std::string>(request.types))}});
}

void PostgresConnection::query(Query& request) {
  const bool slow = request.timeout > 0 && !tier_->options().pooler;
  // One that must not be done twice is ended by the server, who says so, before the watchdog cuts and nobody knows.
  const Nanos limit = request.once ? request.timeout / 10 * 9 : request.timeout;
  request.sent = false;
  if (slow) link_->run("SET statement_timeout = " + std::to_string(std::max<Nanos>(1, limit / 1'000'000)));
  request.sent = true;
  const auto reset = [&] {
    if (!slow) return;
    try {
      link_->run(std::string("RESET statement_timeout"));
    } catch (const TierFailure&) {  // the answer is here; a connection that broke after it is not used again
      if (link_->usable()) throw;
    }
  };
  try {
    const Rows rows = link_->run(request.text, request.parameters);
    request.rows.resize(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (std::size_t c = 0; c < rows.columns(); ++c) request.rows[i].push_back(rows.text(i, c));
    }
  } catch (const TierFailure& failure) {
    if (link_->usable() && failure.error.fault != TierFault::kUnavailable) reset();
    throw;
  }
  reset();
}

}  // namespace stillwarm
