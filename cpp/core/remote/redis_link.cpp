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

#include "core/remote/watchdog.hpp"

namespace stillwarm {

namespace {

// Errors with which a server says that it is of no use for now. A replica that takes no writes is one: it was the
// master when the connection was made.
constexpr std::array<std::string_view, 9> kGone = {"LOADING",   "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY",
                                                   "UNBLOCKED", "NOREPLICAS", "MOVED",       "ASK"};

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

// How hiredis builds a reply: where its privdata says. Nothing is thrown through C; null is "no memory".
RedisNode* part(const redisReadTask* task, RedisNode::Kind kind) noexcept {
  RedisNode* const array = task->parent == nullptr ? nullptr : static_cast<RedisNode*>(task->parent->obj);
  return static_cast<RedisArena*>(task->privdata)->node(array, static_cast<std::size_t>(task->idx), kind);
}

void* make_text(const redisReadTask* task, char* text, std::size_t size) noexcept {
  using Kind = RedisNode::Kind;
  const Kind kind = task->type == REDIS_REPLY_ERROR    ? Kind::kError
                    : task->type == REDIS_REPLY_STATUS ? Kind::kStatus
                                                       : Kind::kText;
  RedisNode* const node = part(task, kind);
  const bool made = node != nullptr && static_cast<RedisArena*>(task->privdata)->set_text(*node, {text, size});
  return made ? node : nullptr;
}

template <class Count>  // int before hiredis 1.0
void* make_array(const redisReadTask* task, Count elements) noexcept {
  RedisNode* const node = part(task, RedisNode::Kind::kArray);
  const auto size = static_cast<std::size_t>(elements);
  const bool made = node != nullptr && static_cast<RedisArena*>(task->privdata)->set_size(*node, size);
  return made ? node : nullptr;
}

void* make_integer(const redisReadTask* task, long long integer) noexcept {
  RedisNode* const node = part(task, RedisNode::Kind::kInteger);
  if (node != nullptr) node->integer = integer;
  return node;
}

void* make_nil(const redisReadTask* task) noexcept { return part(task, RedisNode::Kind::kNil); }

void leave(void* /*reply*/) noexcept {}  // it goes with its arena

// Kinds of RESP3, which nobody asks for: without a function for them hiredis 1.x gives back a number in place of a
// reply. Null ends the connection.
template <class Functions>
void refuse_others([[maybe_unused]] Functions& f) noexcept {
  if constexpr (requires {
                  f.createDouble;
                  f.createBool;
                }) {
    f.createDouble = [](const redisReadTask*, double, char*, std::size_t) noexcept -> void* { return nullptr; };
    f.createBool = [](const redisReadTask*, int) noexcept -> void* { return nullptr; };
  }
}

redisReplyObjectFunctions* in_arenas() noexcept {
  static redisReplyObjectFunctions functions = [] {
    redisReplyObjectFunctions f{};
    f.createString = make_text;
    f.createArray = make_array;
    f.createInteger = make_integer;
    f.createNil = make_nil;
    f.freeObject = leave;
    refuse_others(f);
    return f;
  }();
  return &functions;
}

constexpr std::size_t kLongestHead = 24;  // the most bytes that a length takes with what stands around it

char* write_head(char* to, char mark, std::size_t number) noexcept {
  *to++ = mark;
  if (number < 10) {
    *to++ = static_cast<char>('0' + number);
  } else {
    to = std::to_chars(to, to + 20, number).ptr;
  }
  *to++ = '\r';
  *to++ = '\n';
  return to;
}

char* write_word(char* to, std::string_view word) noexcept {
  to = write_head(to, '$', word.size());
  to = std::copy(word.begin(), word.end(), to);
  *to++ = '\r';
  *to++ = '\n';
  return to;
}

constexpr std::string_view kAsking = "*1\r\n$6\r\nASKING\r\n";

// Behind what `out` has.
void write(std::string& out, std::span<const std::string_view> command) {
  std::size_t most = kLongestHead;
  for (const auto word : command) most += word.size() + kLongestHead + 2;
  const std::size_t before = out.size();
  out.resize(before + most);
  char* to = write_head(out.data() + before, '*', command.size());
  for (const auto word : command) to = write_word(to, word);
  out.resize(static_cast<std::size_t>(to - out.data()));
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------- errors

TierError redis_error(std::string_view text) {
  std::string_view word = text.substr(0, text.find_first_of(" :"));
  for (const std::string_view denied : {"user executing the script can't run this command", "ACL failure in script"}) {
    if (text.find(denied) != std::string_view::npos) word = "NOPERM";  // before Redis 7.2, and from there on
  }
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

RedisLink::RedisLink(const RedisAddress& address) : tls_(address.tls.on) {
  const Nanos deadline = steady_now() + address.connect_timeout;
  const timeval limit = time_of(address.connect_timeout);
  link_.reset(address.host.starts_with('/') ? redisConnectUnixWithTimeout(address.host.c_str(), limit)
                                            : redisConnectWithTimeout(address.host.c_str(), address.port, limit));
  if (link_ == nullptr) throw std::bad_alloc();
  if (!usable()) throw TierFailure({TierFault::kUnavailable, "", link_->errstr});
  link_->reader->fn = in_arenas();
  const bool closes = ::fcntl(link_->fd, F_SETFD, FD_CLOEXEC) == 0;
  if (tls_) begin_redis_tls(*link_, address.host, address.tls, deadline);
  duplicate_ = ::fcntl(link_->fd, F_DUPFD_CLOEXEC, 0);
  if (duplicate_ < 0 || !closes) {  // nobody could cut it
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
  if (asking_) out_ += kAsking;
  write(out_, command);
}

std::string RedisLink::written(std::span<const std::string_view> command) {
  std::string text;
  write(text, command);
  return text;
}

void RedisLink::append_written(std::string_view command) {
  if (asking_) out_ += kAsking;
  out_ += command;
}

void RedisLink::hand_over() {
  constexpr std::size_t kKept = 65'536;
  if (out_.empty()) return;
  if (redisAppendFormattedCommand(link_.get(), out_.data(), out_.size()) != REDIS_OK) throw std::bad_alloc();
  if (out_.capacity() > kKept) {
    out_ = {};
  } else {
    out_.clear();
  }
}

void RedisLink::send() {
  hand_over();
  for (int done = 0; done == 0;) {
    if (redisBufferWrite(link_.get(), &done) != REDIS_OK) {
      throw TierFailure({TierFault::kUnavailable, "", link_->errstr});
    }
  }
}

OwnedReply RedisLink::owned(void* reply) noexcept { return {static_cast<const RedisNode*>(reply), std::move(arena_)}; }

void RedisLink::expect() {
  if (arena_ != nullptr) return;                          // a reply of which a part is here already
  arena_ = std::make_unique_for_overwrite<RedisArena>();  // whose room needs no zeros
  link_->reader->privdata = arena_.get();
}

OwnedReply RedisLink::read() {
  hand_over();
  expect();
  void* reply = nullptr;
  if (redisGetReply(link_.get(), &reply) != REDIS_OK || reply == nullptr) {
    const bool late = link_->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK);
    std::string text = late ? "no answer within the timeout" : link_->errstr;
    if (text.empty()) text = "the connection was lost";
    throw TierFailure({late ? TierFault::kTimeout : TierFault::kUnavailable, "", std::move(text)});
  }
  return owned(reply);
}

std::optional<OwnedReply> RedisLink::read_if_there() {
  for (;;) {
    expect();
    void* reply = nullptr;
    if (redisGetReplyFromReader(link_.get(), &reply) != REDIS_OK) {
      throw TierFailure({TierFault::kUnavailable, "", link_->errstr});
    }
    if (reply != nullptr) return owned(reply);
    pollfd ready{link_->fd, POLLIN, 0};
    if (::poll(&ready, 1, 0) <= 0) return std::nullopt;
    // What is readable under TLS may be less than a reply, or none of ours at all.
    const int read = tls_ ? read_redis_tls(*link_) : redisBufferRead(link_.get());
    if (read != REDIS_OK) throw TierFailure({TierFault::kUnavailable, "", link_->errstr});
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
