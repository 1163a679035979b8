// One connection of the Redis tier. Thread rule and what it refuses to know: see redis_tier.hpp.
#include <algorithm>

#include "core/remote/glob.hpp"
#include "core/remote/redis_tier.hpp"
#include "core/remote/redis_work.hpp"

namespace stillwarm {

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
    case Request::Kind::kLookUp: {
      RedisLookUp work(*tier_, batch);
      return session_->run(work);
    }
    case Request::Kind::kStore: {
      RedisStores work(*tier_, batch);
      return session_->run(work);
    }
    case Request::Kind::kInvalidate:
      return invalidate(batch);
    case Request::Kind::kPoll:
      return tier_->poll(*session_);
    case Request::Kind::kLease: {
      RedisLease work(*tier_, static_cast<Lease&>(*batch.front()));
      return session_->run(work);
    }
    case Request::Kind::kFlush:
      return flush(static_cast<const Flush&>(*batch.front()));
    case Request::Kind::kQuery:
      return query(static_cast<Query&>(*batch.front()));
  }
}

void RedisConnection::invalidate(std::span<Request* const> batch) {
  RedisInvalidations work(*tier_, batch);
  session_->run(work);
  for (std::size_t n = 0; n < batch.size(); ++n) static_cast<Invalidate&>(*batch[n]).count = work.count(n);
  if (batch.front()->variant != Invalidate::kPattern) return;
  for (std::size_t n = 0; n < batch.size(); ++n) match(static_cast<Invalidate&>(*batch[n]), work.number(n));
}

// What a pattern matches, by one pass over the server's keys. The fence is there already: what is loading now is not
// stored, and what was stored after it is younger than the pattern.
void RedisConnection::match(Invalidate& request, long long number) {
  RedisLink& link = session_->link();
  const RedisNames& names = tier_->names();
  const std::string_view glob = std::string_view(request.name).substr(Invalidate::kPatternName.size());
  const std::string match = wider_glob(names.entries) + ":" + wider_glob(glob);
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
    RedisMatches work(*tier_, std::move(entries), request.soft, number);
    session_->run(work);
    request.count += work.count();
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
        session_->link().run({"SCAN", *given[1], "MATCH", wider_glob(names.entries), "COUNT", *given[2]});
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

void RedisConnection::flush(const Flush& request) {
  RedisHits work(*tier_, request);
  for (std::size_t i = 0; i < request.keys.size(); ++i) work.add(request.types[i], request.keys[i], request.hits[i]);
  session_->run(work);
}

// "done": whether the write with this origin was done (parameters origin, moment before it): "1", "0", "-1" nobody
// knows. "survey": see there. "command": any one command; a row for each element of its answer.
void RedisConnection::query(Query& request) {
  request.sent = true;
  const auto& given = request.parameters;
  if (request.text == "done" && given.size() == 3) {
    RedisDone work(*tier_, request);
    return session_->run(work);
  }
  const bool complete = std::all_of(given.begin(), given.end(), [](const auto& word) { return word.has_value(); });
  if (request.text == "survey" && given.size() >= 3 && complete) return survey(request);
  if (request.text != "command" || given.empty()) {
    throw TierFailure({TierFault::kRejected, "ERR", "the Redis tier has no such query"});
  }
  RedisCommand work(request);
  session_->run(work);
}

}  // namespace stillwarm
