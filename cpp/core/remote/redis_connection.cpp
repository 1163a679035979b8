// One connection of the Redis tier. Thread rule and what it refuses to know: see redis_tier.hpp.
#include <algorithm>
#include <array>

#include "core/remote/glob.hpp"
#include "core/remote/redis_tier.hpp"

namespace stillwarm {

namespace {

constexpr Nanos kMillisecond = 1'000'000;
constexpr long long kLongest = 100LL * 365 * 86'400'000;  // ms: a clock that jumped cannot promise more
constexpr std::string_view kPatternName = "pattern:";
constexpr std::string_view kScanned = "1000";  // keys that the server looks at in one step of a scan
constexpr std::size_t kSurveyed = 256;         // entries that one script judges

std::string milliseconds(Nanos duration) {
  if (duration >= kForever) return "-1";
  return std::to_string(std::min<long long>(duration / kMillisecond, kLongest));
}

std::string text_of(std::span<const std::string> tags) {
  std::string text;
  for (const auto& tag : tags) (text += std::to_string(tag.size()) += ':') += tag;
  return text;
}

// What a glob begins with, as a glob of Redis's own that matches more.
std::string wider(std::string_view glob) {
  std::string text;
  for (const char c : glob.substr(0, glob.find_first_of("*?["))) {
    if (c == '\\' || c == ']' || c == '^') text += '\\';
    text += c;
  }
  return text += '*';
}

std::string_view name_of(Store::Mode mode) noexcept {
  constexpr std::array<std::string_view, 4> kNames = {"load", "set", "add", "swap"};
  return kNames[static_cast<std::size_t>(mode)];
}

TierError too_long() { return {TierFault::kRejected, "ERR", "the tags of an entry are longer than 99,999 bytes"}; }

}  // namespace

bool RedisConnection::serve(std::span<Request* const> batch) {
  try {
    if (server_ != tier_->server_count()) {
      throw TierFailure({TierFault::kUnavailable, "", "another server is the master by now"});
    }
    perform(batch);
    return session_->link().usable() && std::none_of(batch.begin(), batch.end(), [](const Request* r) {
             return r->error.fault == TierFault::kUnavailable;
           });
  } catch (const TierFailure& failure) {
    const bool answered = failure.error.fault == TierFault::kRejected || !failure.error.state.empty();
    for (Request* r : batch) {
      r->error = failure.error;
      if (!answered && r->once) r->error.fault = TierFault::kInDoubt;
    }
    return failure.error.fault == TierFault::kRejected && session_->link().usable();
  }
}

bool RedisConnection::ping() {
  try {
    session_->link().run({"PING"});
    return session_->link().usable();
  } catch (const TierFailure&) {
    return false;
  }
}

void RedisConnection::perform(std::span<Request* const> batch) {
  switch (batch.front()->kind) {
    case Request::Kind::kLookUp:
      return look_up(batch);
    case Request::Kind::kStore:
      return store(batch);
    case Request::Kind::kInvalidate:
      return invalidate(batch);
    case Request::Kind::kPoll:
      return tier_->poll(*session_);
    case Request::Kind::kLease:
      return lease(static_cast<Lease&>(*batch.front()));
    case Request::Kind::kFlush:
      return flush(static_cast<Flush&>(*batch.front()));
    case Request::Kind::kQuery:
      return query(static_cast<Query&>(*batch.front()));
  }
}

// ----------------------------------------------------------------------------------------------------------- writes

void RedisConnection::store(std::span<Request* const> batch) {
  const RedisNames& names = tier_->names();
  std::vector<RedisCall> calls;
  std::vector<Store*> stores;
  const std::string mine = tier_->process();
  for (Request* r : batch) {
    auto& s = static_cast<Store&>(*r);
    s.stored = false;
    const std::string tags = text_of(s.tags);
    if (tags.size() > 99'999) {
      s.error = too_long();
      continue;
    }
    const Moment born = Moment::of(s.born);
    s.version = random_text(12);
    RedisCall call = tier_->call(RedisScript::kStore, {names.entry(s.type, s.key)});
    call.arguments.insert(
        call.arguments.end(),
        {std::string(name_of(s.mode)), std::string(born.life), std::to_string(xmax_of(born.snapshot)),
         std::to_string(RedisNames::stripe(s.key)), s.type, RedisNames::spelled(s.type), s.key, s.version, s.expected,
         milliseconds(s.fresh_for), milliseconds(s.keep_for), s.origin.empty() ? mine : s.origin, names.channel,
         std::to_string(tags.size()), tags + s.payload, s.owner});
    if (!s.lease.empty()) call.keys.push_back(names.lease(s.lease));
    call.arguments.insert(call.arguments.end(), s.tags.begin(), s.tags.end());
    calls.push_back(std::move(call));
    stores.push_back(&s);
  }
  const auto replies = session_->run(calls);
  for (std::size_t i = 0; i < stores.size(); ++i) {
    if (const auto error = replies[i].error()) {
      stores[i]->error = redis_error(*error);
      continue;
    }
    stores[i]->stored = replies[i].at(0).integer() != 0;
    if (stores[i]->stored) {
      tier_->inbox()->know(redis_moment(std::to_string(replies[i].at(2).integer()), replies[i].at(1).text()));
    }
  }
}

void RedisConnection::invalidate(std::span<Request* const> batch) {
  RedisCall call = tier_->call(RedisScript::kInvalidate);
  call.arguments.insert(call.arguments.end(), {tier_->process(), tier_->names().channel});
  for (Request* r : batch) {
    const auto& i = static_cast<const Invalidate&>(*r);
    const std::string key = i.name.starts_with("key:") ? i.name.substr(4) : "";
    call.arguments.insert(call.arguments.end(),
                          {i.name, i.soft ? "1" : "0", std::to_string(RedisNames::stripe(key)), key});
  }
  const OwnedReply told = session_->run(call);
  for (std::size_t n = 0; n < batch.size(); ++n) {
    auto& i = static_cast<Invalidate&>(*batch[n]);
    i.count = static_cast<std::uint64_t>(told.at(2 + n).integer());
  }
  if (batch.front()->variant != Invalidate::kPattern) return;
  // They are merged, and have their numbers in their order.
  const long long last = told.at(1).integer();
  for (std::size_t n = 0; n < batch.size(); ++n) {
    match(static_cast<Invalidate&>(*batch[n]), last - static_cast<long long>(batch.size() - 1 - n));
  }
}

// What a pattern matches, by one pass over the server's keys. The fence is there already: what is loading now is not
// stored, and what was stored after it is younger than the pattern.
void RedisConnection::match(Invalidate& request, long long number) {
  RedisLink& link = session_->link();
  const RedisNames& names = tier_->names();
  const std::string_view glob = std::string_view(request.name).substr(kPatternName.size());
  const std::string match = wider(names.entries) + ":" + wider(glob);
  std::string cursor = "0";
  request.count = 0;
  do {
    const OwnedReply step = link.run({"SCAN", cursor, "MATCH", match, "COUNT", kScanned});
    cursor = step.at(0).text();
    std::vector<std::string> entries;
    for (std::size_t i = 0; i < step.at(1).size(); ++i) {
      const std::string_view entry = step.at(1).at(i).text();
      const auto key = names.key_of(entry);
      if (key && glob_matches(glob, *key)) entries.emplace_back(entry);
    }
    if (entries.empty()) continue;
    RedisCall call = tier_->call(RedisScript::kMatch, std::move(entries));
    call.arguments.insert(call.arguments.end(), {request.soft ? "1" : "0", std::to_string(number)});
    request.count += static_cast<std::uint64_t>(session_->run(call).integer());
  } while (cursor != "0");
}

// One step over the server's keys: parameters "look" or "purge", cursor, how many keys to look at. The first row is the
// cursor of the next step, "0" at the end; then one for each entry: its name without what all of them begin with, its
// state and its bytes. With the cursor "" the parameters after it are names of entries, as the rows have them.
void RedisConnection::survey(Query& request) {
  const RedisNames& names = tier_->names();
  const auto& given = request.parameters;
  std::vector<std::string> entries;
  std::string cursor = "0";
  if (given[1]->empty()) {
    for (std::size_t i = 2; i < given.size(); ++i) entries.push_back(names.entries + *given[i]);
  } else {
    const OwnedReply step =
        session_->link().run({"SCAN", *given[1], "MATCH", wider(names.entries), "COUNT", *given[2]});
    cursor = step.at(0).text();
    for (std::size_t i = 0; i < step.at(1).size(); ++i) {
      const std::string_view name = step.at(1).at(i).text();
      if (names.key_of(name)) entries.emplace_back(name);
    }
  }
  request.rows = {{cursor}};
  for (std::size_t done = 0; done < entries.size(); done += kSurveyed) {
    const auto part = std::span(entries).subspan(done, std::min(kSurveyed, entries.size() - done));
    RedisCall call = tier_->call(RedisScript::kSurvey, {part.begin(), part.end()});
    call.arguments.push_back(*given[0]);
    for (const auto& name : part) call.arguments.push_back(names.type_of(name));
    const OwnedReply told = session_->run(call);
    for (std::size_t i = 0; i < part.size(); ++i) {
      request.rows.push_back({part[i].substr(names.entries.size()), std::to_string(told.at(2 * i).integer()),
                              std::to_string(told.at(2 * i + 1).integer())});
    }
  }
}

// ------------------------------------------------------------------------------------------------------------- rest

void RedisConnection::lease(Lease& request) {
  const std::string name = tier_->names().lease(request.key);
  if (request.verb == Lease::Verb::kGiveBack) {
    session_->run(RedisCall{RedisScript::kGiveBack, {name}, {request.owner}});
    return;
  }
  RedisLink& link = session_->link();
  link.append({"SET", name, request.owner, "NX", "PX", std::to_string(std::max<Nanos>(1, request.age / kMillisecond))});
  link.append({"GET", name});
  const OwnedReply set = link.read();
  const OwnedReply owner = link.read();
  expect_ok(set);
  expect_ok(owner);
  request.taken = !owner.nil() && owner.text() == request.owner;
}

void RedisConnection::flush(Flush& request) {
  const RedisNames& names = tier_->names();
  RedisCall call{RedisScript::kFlush, {names.hits, names.flushed(tier_->process())}, {std::to_string(request.batch)}};
  for (std::size_t i = 0; i < request.keys.size(); ++i) {
    call.arguments.push_back(RedisNames::spelled(request.types[i]) + ":" + request.keys[i]);
    call.arguments.push_back(std::to_string(request.hits[i]));
  }
  session_->run(call);
}

// "done": whether the write with this origin was done (parameters origin, moment before it): "1", "0", "-1" nobody
// knows. "survey": see there. "command": any one command; a row for each element of its answer.
void RedisConnection::query(Query& request) {
  request.sent = true;
  const auto& given = request.parameters;
  if (request.text == "done" && given.size() == 2) {
    const std::string moment = given[1].value_or("");
    const Moment before = Moment::of(moment);
    RedisCall call = tier_->call(RedisScript::kDone);
    call.arguments.insert(call.arguments.end(),
                          {given[0].value_or(""), std::string(before.life), std::to_string(xmax_of(before.snapshot))});
    request.rows = {{std::to_string(session_->run(call).integer())}};
    return;
  }
  const bool complete = std::all_of(given.begin(), given.end(), [](const auto& word) { return word.has_value(); });
  if (request.text == "survey" && given.size() >= 3 && complete) return survey(request);
  if (request.text != "command" || given.empty()) {
    throw TierFailure({TierFault::kRejected, "ERR", "the Redis tier has no such query"});
  }
  std::vector<std::string_view> words;
  words.reserve(given.size());
  for (const auto& word : given) words.emplace_back(word ? std::string_view(*word) : std::string_view());
  session_->link().append(words);
  const OwnedReply reply = session_->link().read();
  expect_ok(reply);
  const auto text = [](const RedisReply& r) -> std::optional<std::string> {
    if (r.nil()) return std::nullopt;
    return r.is_integer() ? std::to_string(r.integer()) : std::string(r.text());
  };
  if (!reply.array()) {
    request.rows = {{text(reply)}};
    return;
  }
  for (std::size_t i = 0; i < reply.size(); ++i) {
    const RedisReply part = reply.at(i);
    auto& row = request.rows.emplace_back();
    if (!part.array()) {
      row.push_back(text(part));
      continue;
    }
    for (std::size_t k = 0; k < part.size(); ++k) {
      if (!part.at(k).array()) row.push_back(text(part.at(k)));
    }
  }
}

}  // namespace stillwarm
