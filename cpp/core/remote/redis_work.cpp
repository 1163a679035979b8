// Works on the marks of a namespace; look-ups: redis_look_up.cpp. Thread rule and what it refuses to know: see the
// header.
#include "core/remote/redis_work.hpp"

#include <algorithm>
#include <tuple>

#include "core/base/clock.hpp"
#include "core/remote/redis_tier.hpp"

namespace stillwarm {

namespace {

std::string lifetime_text(Nanos duration) {
  if (duration >= kForever) return "-1";
  return std::to_string(std::min<long long>(duration / kMillisecond, RedisHead::kLongest));
}

std::string text_of(std::span<const std::string> tags) {
  std::string text;
  for (const auto& tag : tags) (text += std::to_string(tag.size()) += ':') += tag;
  return text;
}

// What a poll begins from.
struct PollStart {
  std::string seen, life;
  std::uint64_t round = 0;
};

PollStart poll_start(const Inbox& inbox) {
  PollStart from;
  from.life = inbox.server();
  std::tie(from.seen, from.round) = inbox.begin_poll();
  for (std::string now; (now = inbox.server()) != from.life;) {  // another's number under this life would be no number
    from.life = std::move(now);
    std::tie(from.seen, from.round) = inbox.begin_poll();
  }
  return from;
}

TierError too_long() { return {TierFault::kRejected, "ERR", "the tags of an entry are longer than 99,999 bytes"}; }

}  // namespace

std::string wider_glob(std::string_view glob) {
  std::string text;
  for (const char c : glob.substr(0, glob.find_first_of("*?["))) {
    if (c == '\\' || c == ']' || c == '^') text += '\\';
    text += c;
  }
  return text += '*';
}

std::string_view moment_in(std::string_view moments, std::optional<std::uint32_t> bucket) noexcept {
  if (!bucket || moments.find('|') == std::string_view::npos) return moments;
  while (!moments.empty()) {
    const std::string_view one = moments.substr(0, moments.find(';'));
    std::string_view text = one;
    if (take_number(text) == *bucket && text.starts_with('|')) return text.substr(1);
    moments.remove_prefix(std::min(moments.size(), one.size() + 1));
  }
  return {};
}

// ------------------------------------------------------------------------------------------------------------ polls

RedisBeginning::RedisBeginning(RedisTier& tier) : RedisScriptWork(tier.call(RedisScript::kPoll)), tier_(tier) {
  call_.arguments.insert(call_.arguments.end(), {"", "0"});
}

void RedisBeginning::told(RedisSession& session, const RedisReply& reply) {
  tier_.repeat(session);
  tier_.inbox()->begin_from(redis_moment(reply.at(1).text(), {}), reply.at(0).text());
}

RedisPoll::RedisPoll(RedisTier& tier)
    : RedisScriptWork(tier.call(RedisScript::kPoll)), tier_(tier), began_(Clock::now()) {
  const PollStart from = poll_start(*tier.inbox());
  round_ = from.round;
  call_.arguments.push_back(from.seen.empty() ? "" : from.life);
  call_.arguments.push_back(std::to_string(xmax_of(from.seen)));
}

// The repetition is for a process with connections to two servers, one of which is cut off from the others by now. A
// server that has no name heard it when the connection was made.
void RedisPoll::told(RedisSession& session, const RedisReply& reply) {
  if (!session.link().run_id().empty()) tier_.repeat(session);
  Inbox& inbox = *tier_.inbox();
  const std::string incarnation(reply.at(0).text());
  const std::string mine = tier_.process();
  std::vector<Message> messages;
  if (reply.at(2).text() == "all" || inbox.is_another(incarnation)) {
    messages.push_back({"all", false});
  } else {
    for (std::size_t i = 3; i < reply.size(); ++i) {
      const std::string_view one = reply.at(i).text();  // origin NUL softness name
      const auto end = one.find('\0');
      if (end == std::string_view::npos || end + 2 > one.size() || one.substr(0, end) == mine) continue;
      messages.push_back({std::string(one.substr(end + 2)), one[end + 1] == '1'});
    }
  }
  inbox.end_poll(redis_moment(reply.at(1).text(), {}), round_, began_, std::move(messages), incarnation);
}

std::size_t RedisGlance::ask(RedisSession& session) {
  session.link().append({"HMGET", tier_.names().marks, "i", "n"});
  return 1;
}

void RedisGlance::take(RedisSession& session, std::span<const OwnedReply> replies) {
  expect_ok(replies[0]);
  if (!session.link().run_id().empty()) tier_.repeat(session);
  if (replies[0].at(0).nil()) return;
  const PollStart from = poll_start(*tier_.inbox());
  is_news_ = from.seen.empty() || replies[0].at(0).text() != from.life ||
             replies[0].at(1).integer() != static_cast<long long>(xmax_of(from.seen));
}

// ----------------------------------------------------------------------------------------------------------- writes

namespace {

constexpr std::size_t kEntry = 4;  // of a call's keys, behind those of the marks

}  // namespace

RedisStores::RedisStores(RedisTier& tier, std::span<Request* const> batch) : tier_(tier) {
  const RedisNames& names = tier.names();
  const std::string mine = tier.process();
  for (Request* r : batch) {
    auto& s = static_cast<Store&>(*r);
    s.stored = false;
    const std::string tags = text_of(s.tags);
    if (tags.size() > 99'999) {
      s.error = too_long();
      continue;
    }
    const Moment born = Moment::of(moment_in(s.born, tier.options().bucket));
    s.version = random_text(12);
    RedisCall call = tier.call(RedisScript::kStore, {names.entry(s.type, s.key)});
    call.arguments.insert(
        call.arguments.end(),
        {name_of(s.mode), std::string(born.life), std::to_string(xmax_of(born.snapshot)),
         std::to_string(RedisNames::stripe(s.key)), s.type, RedisNames::spelled(s.type), s.key, s.version, s.expected,
         lifetime_text(s.fresh_for), lifetime_text(s.keep_for), s.origin.empty() ? mine : s.origin, names.channel,
         std::to_string(tags.size()), tags + s.payload, s.owner});
    const auto bucket = tier.options().bucket;
    if (!s.lease.empty() && (!bucket || RedisNames::bucket_of_lease(s.lease) == *bucket)) {
      call.keys.push_back(names.lease(s.lease));
    }
    call.arguments.insert(call.arguments.end(), s.tags.begin(), s.tags.end());
    calls_.push_back(std::move(call));
    stores_.push_back(&s);
  }
}

std::size_t RedisStores::ask(RedisSession& session) {
  for (const auto& call : calls_) session.append(call);
  return calls_.size();
}

void RedisStores::take(RedisSession& /*session*/, std::span<const OwnedReply> replies) {
  for (std::size_t i = 0; i < stores_.size(); ++i) {
    if (const auto error = replies[i].error()) {
      stores_[i]->error = redis_error(*error);
      continue;
    }
    stores_[i]->stored = replies[i].at(0).integer() != 0;
    if (stores_[i]->stored) {
      tier_.inbox()->know(redis_moment(std::to_string(replies[i].at(2).integer()), replies[i].at(1).text()));
      tier_.note_entry(calls_[i].keys[kEntry], stores_[i]->version);
    }
  }
}

RedisInvalidations::RedisInvalidations(RedisTier& tier, std::span<Request* const> batch)
    : RedisScriptWork(tier.call(RedisScript::kInvalidate)), tier_(tier), batch_(batch), counts_(batch.size()) {
  call_.arguments.insert(call_.arguments.end(), {tier.process(), tier.names().channel});
  for (const Request* r : batch) {
    const auto& i = static_cast<const Invalidate&>(*r);
    const std::string key = i.name.starts_with("key:") ? i.name.substr(4) : "";
    call_.arguments.insert(call_.arguments.end(),
                           {i.name, i.soft ? "1" : "0", std::to_string(RedisNames::stripe(key)), key});
  }
}

void RedisInvalidations::told(RedisSession& session, const RedisReply& reply) {
  last_ = reply.at(1).integer();
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    counts_[i] = static_cast<std::uint64_t>(reply.at(2 + i).integer());
    const auto& request = static_cast<const Invalidate&>(*batch_[i]);
    tier_.took(session, request.name, request.soft);
  }
}

RedisMatches::RedisMatches(RedisTier& tier, std::vector<std::string> entries, bool soft, long long number)
    : RedisScriptWork(tier.call(RedisScript::kMatch, std::move(entries))) {
  call_.arguments.insert(call_.arguments.end(), {soft ? "1" : "0", std::to_string(number)});
}

void RedisMatches::told(RedisSession& /*session*/, const RedisReply& reply) {
  count_ = static_cast<std::uint64_t>(reply.integer());
}

// ------------------------------------------------------------------------------------------------------------- rest

RedisLease::RedisLease(const RedisTier& tier, Lease& request)
    : request_(request),
      name_(tier.names().lease(request.key)),
      age_(std::to_string(std::max<Nanos>(1, request.age / kMillisecond))) {}

std::size_t RedisLease::ask(RedisSession& session) {
  if (request_.verb == Lease::Verb::kGiveBack) {
    session.append(RedisCall{RedisScript::kGiveBack, {name_}, {request_.owner}});
    return 1;
  }
  session.link().append({"SET", name_, request_.owner, "NX", "PX", age_});
  session.link().append({"GET", name_});
  return 2;
}

void RedisLease::take(RedisSession& /*session*/, std::span<const OwnedReply> replies) {
  for (const auto& reply : replies) expect_ok(reply);
  if (request_.verb == Lease::Verb::kGiveBack) return;
  request_.taken = !replies[1].nil() && replies[1].text() == request_.owner;
}

RedisHits::RedisHits(const RedisTier& tier, const Flush& request)
    : RedisScriptWork({RedisScript::kFlush,
                       {tier.names().hits, tier.names().flushed(tier.process())},
                       {std::to_string(request.batch)}}) {}

void RedisHits::add(const std::string& type, const std::string& key, std::uint64_t hits) {
  call_.arguments.push_back(RedisNames::spelled(type) + ":" + key);
  call_.arguments.push_back(std::to_string(hits));
}

RedisDone::RedisDone(const RedisTier& tier, Query& request)
    : RedisScriptWork(tier.call(RedisScript::kDone)), request_(request) {
  const std::string moment = request.parameters[1].value_or("");
  const Moment before = Moment::of(moment_in(moment, tier.options().bucket));
  call_.arguments.insert(call_.arguments.end(), {request.parameters[0].value_or(""), std::string(before.life),
                                                 std::to_string(xmax_of(before.snapshot))});
}

void RedisDone::told(RedisSession& /*session*/, const RedisReply& reply) {
  request_.rows = {{std::to_string(reply.integer())}};
}

std::size_t RedisCommand::ask(RedisSession& session) {
  std::vector<std::string_view> words;
  for (const auto& word : request_.parameters) words.emplace_back(word ? std::string_view(*word) : std::string_view());
  session.link().append(words);
  return 1;
}

void RedisCommand::take(RedisSession& /*session*/, std::span<const OwnedReply> replies) { tell(replies[0]); }

void RedisCommand::tell(const RedisReply& reply) {
  expect_ok(reply);
  const auto text = [](const RedisReply& r) -> std::optional<std::string> {
    if (r.nil()) return std::nullopt;
    return r.is_integer() ? std::to_string(r.integer()) : std::string(r.text());
  };
  if (!reply.array()) {
    request_.rows = {{text(reply)}};
    return;
  }
  for (std::size_t i = 0; i < reply.size(); ++i) {
    const RedisReply part = reply.at(i);
    auto& row = request_.rows.emplace_back();
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
