#include "core/remote/redis_session.hpp"

#include <algorithm>

#include "core/remote/redis_work.hpp"

namespace stillwarm {

namespace {

constexpr int kKnowsFlags = 70000;  // the first version whose scripts say what they do

bool is_unknown(const OwnedReply& reply) {
  const auto error = reply.error();
  return error && error->starts_with("NOSCRIPT");
}

}  // namespace

void RedisSession::begin(const RedisAddress& address) {
  link_.greet(address);
  load_scripts();
}

void RedisSession::load_scripts() {
  for (std::size_t i = 0; i < kRedisScripts; ++i) {
    const std::string text = text_of(static_cast<RedisScript>(i), link_.server_version() >= kKnowsFlags);
    link_.append({"SCRIPT", "LOAD", text});
  }
  TierError refused;
  for (auto& hash : hashes_) {
    const OwnedReply reply = link_.read();
    if (const auto error = reply.error()) {
      refused = redis_error(*error);
    } else {
      hash = reply.text();
    }
  }
  if (refused) throw TierFailure(refused);
}

void RedisSession::append(const RedisCall& call) {
  const std::string count = std::to_string(call.keys.size());
  std::vector<std::string_view> words = {"EVALSHA", hashes_[static_cast<std::size_t>(call.script)], count};
  words.reserve(3 + call.keys.size() + call.arguments.size());
  words.insert(words.end(), call.keys.begin(), call.keys.end());
  words.insert(words.end(), call.arguments.begin(), call.arguments.end());
  std::string life;
  if (is_about_marks(call.script)) words[3 + call.keys.size()] = (life = call.arguments.at(0) + link_.run_id());
  link_.append(words);
}

void RedisSession::append_marks(const std::string& marks, std::span<const std::string_view> types) {
  const bool again = types.size() == 1 && types[0] == asked_type_ && marks == asked_marks_;
  if (again) return link_.append_written(asks_marks_);
  std::vector<std::string> fields;
  for (const auto type : types) {
    for (const std::string_view kind : {"type:", "~type:", "@type:"}) fields.emplace_back(kind).append(type);
  }
  std::vector<std::string_view> words = {"HMGET", marks, "i", "n", "f", "t", "all", "~all", "@all"};
  words.insert(words.end(), fields.begin(), fields.end());
  if (types.size() != 1) return link_.append(words);
  asked_type_.clear();  // nothing is half known without memory
  asks_marks_ = RedisLink::written(words);
  asked_marks_ = marks;
  asked_type_ = types[0];
  link_.append_written(asks_marks_);
}

std::vector<OwnedReply> RedisSession::read(std::size_t count) {
  std::vector<OwnedReply> replies;
  replies.reserve(count);
  while (replies.size() < count) replies.push_back(link_.read());
  return replies;
}

bool RedisSession::renewed(std::span<const OwnedReply> replies) {
  if (std::none_of(replies.begin(), replies.end(), is_unknown)) return false;
  load_scripts();
  return true;
}

// What must not be done twice is a work of one call, which was not done where the script was unknown.
void RedisSession::run(RedisWork& work) {
  auto replies = read(work.ask(*this));
  if (renewed(replies)) replies = read(work.ask(*this));
  work.take(*this, replies);
}

OwnedReply RedisSession::run(const RedisCall& call) {
  append(call);
  auto replies = read(1);
  if (renewed(replies)) {
    append(call);
    replies = read(1);
  }
  expect_ok(replies.front());
  return std::move(replies.front());
}

}  // namespace stillwarm
