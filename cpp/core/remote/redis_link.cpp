#include "core/remote/redis_link.hpp"

#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <new>

namespace stillwarm {

namespace {

// Errors with which a server says that it is of no use for now. A replica that takes no writes is one: it was the
// master when the connection was made.
constexpr std::array<std::string_view, 9> kGone = {"LOADING",   "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY",
                                                   "UNBLOCKED", "NOREPLICAS", "MOVED",       "ASK"};

[[noreturn]] void unexpected() {
  throw TierFailure({TierFault::kUnavailable, "", "the server's answer is not what was asked for"});
}

timeval time_of(Nanos duration) {
  const Nanos us = std::max<Nanos>(1'000, duration / 1'000);
  return {static_cast<time_t>(us / 1'000'000), static_cast<suseconds_t>(us % 1'000'000)};
}

// The rest of the line that begins so; empty: there is none.
std::string_view line_of(std::string_view info, std::string_view name) {
  const auto at = info.find(name);
  if (at == std::string_view::npos) return {};
  info.remove_prefix(at + name.size());
  return info.substr(0, info.find_first_of("\r\n"));
}

// "redis_version:7.0.15" -> 70015; 0: it does not say.
int version_of(std::string_view info) {
  info = line_of(info, "redis_version:");
  int version = 0;
  for (int part = 0; part < 3; ++part) {
    int number = 0;
    const auto [end, error] = std::from_chars(info.data(), info.data() + info.size(), number);
    version = version * 100 + std::min(number, 99);
    info.remove_prefix(static_cast<std::size_t>(end - info.data()));
    if (!info.empty() && info.front() == '.') info.remove_prefix(1);
  }
  return version;
}

}  // namespace

// --------------------------------------------------------------------------------------------------------- replies

bool RedisReply::nil() const noexcept { return reply_ == nullptr || reply_->type == REDIS_REPLY_NIL; }

bool RedisReply::array() const noexcept { return reply_ != nullptr && reply_->type == REDIS_REPLY_ARRAY; }

bool RedisReply::is_integer() const noexcept { return reply_ != nullptr && reply_->type == REDIS_REPLY_INTEGER; }

std::optional<std::string_view> RedisReply::error() const noexcept {
  if (reply_ == nullptr || reply_->type != REDIS_REPLY_ERROR) return std::nullopt;
  return std::string_view(reply_->str, static_cast<std::size_t>(reply_->len));
}

std::string_view RedisReply::text() const {
  if (reply_ == nullptr || (reply_->type != REDIS_REPLY_STRING && reply_->type != REDIS_REPLY_STATUS)) unexpected();
  return {reply_->str, static_cast<std::size_t>(reply_->len)};
}

long long RedisReply::integer() const {
  if (reply_ != nullptr && reply_->type == REDIS_REPLY_INTEGER) return reply_->integer;
  const std::string_view digits = text();
  long long number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size()) unexpected();
  return number;
}

std::size_t RedisReply::size() const {
  if (!array()) unexpected();
  return reply_->elements;
}

RedisReply RedisReply::at(std::size_t i) const {
  if (i >= size()) unexpected();
  return RedisReply(reply_->element[i]);
}

void OwnedReply::Closer::operator()(redisReply* reply) const noexcept { freeReplyObject(reply); }

TierError redis_error(std::string_view text) {
  std::string_view word = text.substr(0, text.find_first_of(" :"));
  if (text.find("user executing the script can't run this command") != std::string_view::npos) word = "NOPERM";
  TierFault fault = TierFault::kRejected;
  if (std::find(kGone.begin(), kGone.end(), word) != kGone.end()) fault = TierFault::kUnavailable;
  if (word == "BUSY") fault = TierFault::kTimeout;  // somebody's script runs
  // A script met a key that has moved to another node: the slot is moving.
  if (text.find("non local key") != std::string_view::npos) fault = TierFault::kUnavailable;
  if (text.find("max number of clients") != std::string_view::npos) fault = TierFault::kUnavailable;
  return {fault, std::string(word), std::string(text.substr(0, text.find('\n')))};
}

void expect_ok(const RedisReply& reply) {
  if (const auto error = reply.error()) throw TierFailure(redis_error(*error));
}

// ------------------------------------------------------------------------------------------------------ connections

void RedisLink::Closer::operator()(redisContext* link) const noexcept { redisFree(link); }

RedisLink::RedisLink(const RedisAddress& address) {
  const timeval limit = time_of(address.connect_timeout);
  link_.reset(address.host.starts_with('/') ? redisConnectUnixWithTimeout(address.host.c_str(), limit)
                                            : redisConnectWithTimeout(address.host.c_str(), address.port, limit));
  if (link_ == nullptr) throw std::bad_alloc();
  if (!usable()) throw TierFailure({TierFault::kUnavailable, "", link_->errstr});
  duplicate_ = ::fcntl(link_->fd, F_DUPFD_CLOEXEC, 0);
  if (duplicate_ < 0 || ::fcntl(link_->fd, F_SETFD, FD_CLOEXEC) != 0) {  // nobody could cut it
    throw TierFailure({TierFault::kUnavailable, "", "the process has no more file descriptors"});
  }
}

RedisLink::~RedisLink() {
  if (duplicate_ >= 0) ::close(duplicate_);
}

void RedisLink::sign_in(const RedisAddress& address) {
  if (address.user.empty()) {
    run({"AUTH", address.password});
  } else {
    run({"AUTH", address.user, address.password});
  }
}

void RedisLink::greet(const RedisAddress& address) {
  if (!address.password.empty()) sign_in(address);
  if (address.database != 0) run({"SELECT", std::to_string(address.database)});
  append({"CLIENT", "SETNAME", "stillwarm"});
  append({"INFO", "server"});
  read();  // a user who may not name the connection may still use it
  const OwnedReply info = read();
  if (!info.error()) {
    version_ = version_of(info.text());
    in_cluster_ = info.text().find("_mode:cluster") != std::string_view::npos;
    run_id_ = line_of(info.text(), "run_id:");
  } else if (redis_error(*info.error()).state != "NOPERM") {
    expect_ok(info);
  }
}

void RedisLink::append(std::span<const std::string_view> command) {
  if (asking_ && redisAppendCommand(link_.get(), "ASKING") != REDIS_OK) throw std::bad_alloc();
  std::vector<const char*> words;
  std::vector<std::size_t> sizes;
  words.reserve(command.size());
  sizes.reserve(command.size());
  for (const auto word : command) {
    words.push_back(word.data());
    sizes.push_back(word.size());
  }
  if (redisAppendCommandArgv(link_.get(), static_cast<int>(words.size()), words.data(), sizes.data()) != REDIS_OK) {
    throw std::bad_alloc();
  }
}

void RedisLink::send() {
  for (int done = 0; done == 0;) {
    if (redisBufferWrite(link_.get(), &done) != REDIS_OK) {
      throw TierFailure({TierFault::kUnavailable, "", link_->errstr});
    }
  }
}

OwnedReply RedisLink::read() {
  void* reply = nullptr;
  if (redisGetReply(link_.get(), &reply) != REDIS_OK || reply == nullptr) {
    const bool late = link_->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK);
    std::string text = late ? "no answer within the timeout" : link_->errstr;
    if (text.empty()) text = "the connection was lost";
    throw TierFailure({late ? TierFault::kTimeout : TierFault::kUnavailable, "", std::move(text)});
  }
  return OwnedReply(static_cast<redisReply*>(reply));
}

std::optional<OwnedReply> RedisLink::read_if_there() {
  for (;;) {
    void* reply = nullptr;
    if (redisGetReplyFromReader(link_.get(), &reply) != REDIS_OK) {
      throw TierFailure({TierFault::kUnavailable, "", link_->errstr});
    }
    if (reply != nullptr) return OwnedReply(static_cast<redisReply*>(reply));
    pollfd ready{link_->fd, POLLIN, 0};
    if (::poll(&ready, 1, 0) <= 0) return std::nullopt;
    if (redisBufferRead(link_.get()) != REDIS_OK) throw TierFailure({TierFault::kUnavailable, "", link_->errstr});
  }
}

OwnedReply RedisLink::run(std::initializer_list<std::string_view> command) {
  append(command);
  OwnedReply reply = read();
  expect_ok(reply);
  return reply;
}

bool RedisLink::usable() const noexcept { return link_ != nullptr && link_->err == 0; }

int RedisLink::descriptor() const noexcept { return link_->fd; }

void RedisLink::cut() noexcept {
  if (duplicate_ >= 0) ::shutdown(duplicate_, SHUT_RDWR);
}

void RedisLink::forget() noexcept {
  if (duplicate_ >= 0) ::close(duplicate_);
  duplicate_ = -1;
  if (link_->fd >= 0) ::close(link_->fd);
  static_cast<void>(link_.release());
}

}  // namespace stillwarm
