// Replies of Redis: in memory of their own, whole however they arrive, and what is said of them stays with them.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <thread>

#include "core/remote/redis_link.hpp"

namespace stillwarm {
namespace {

// A server that takes one connection and says what it is told to say.
class Speaker {
 public:
  Speaker() : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof place;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&place), size), 0);
    EXPECT_EQ(::listen(listener_, 1), 0);
    EXPECT_EQ(::getsockname(listener_, reinterpret_cast<sockaddr*>(&place), &size), 0);
    port_ = ::ntohs(place.sin_port);
  }
  Speaker(const Speaker&) = delete;
  Speaker& operator=(const Speaker&) = delete;
  ~Speaker() {
    if (socket_ >= 0) ::close(socket_);
    ::close(listener_);
  }

  RedisAddress address() const { return {.host = "127.0.0.1", .port = port_}; }
  void accept() { socket_ = ::accept(listener_, nullptr, nullptr); }
  void say(std::string_view text) const {
    EXPECT_EQ(::send(socket_, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  std::string hear(std::size_t bytes) const {
    std::string text(bytes, '\0');
    EXPECT_EQ(::recv(socket_, text.data(), bytes, MSG_WAITALL), static_cast<ssize_t>(bytes));
    return text;
  }

 private:
  int listener_, socket_ = -1, port_ = 0;
};

TEST(RedisReply, EveryKindIsWhatTheServerSaid) {
  Speaker server;
  RedisLink link(server.address());
  server.accept();
  server.say("*6\r\n$5\r\nhello\r\n:-42\r\n$-1\r\n+OK\r\n-OOM no room\r\n*2\r\n$0\r\n\r\n*0\r\n");
  const OwnedReply reply = link.read();
  ASSERT_EQ(reply.size(), 6U);
  EXPECT_EQ(reply.at(0).text(), "hello");
  EXPECT_EQ(reply.at(1).integer(), -42);
  EXPECT_TRUE(reply.at(1).is_integer());
  EXPECT_TRUE(reply.at(2).nil());
  EXPECT_EQ(reply.at(3).text(), "OK");
  EXPECT_EQ(reply.at(4).error(), "OOM no room");
  EXPECT_EQ(reply.at(5).at(0).text(), "");
  EXPECT_EQ(reply.at(5).at(1).size(), 0U);
  EXPECT_FALSE(reply.error().has_value());
  EXPECT_THROW(static_cast<void>(reply.at(6)), TierFailure);
  EXPECT_THROW(static_cast<void>(reply.text()), TierFailure);
  EXPECT_THROW(static_cast<void>(reply.at(0).integer()), TierFailure);
  EXPECT_THROW(static_cast<void>(reply.at(2).text()), TierFailure);
}

TEST(RedisReply, OneThatArrivesByteByByteIsWhole) {
  Speaker server;
  RedisLink link(server.address());
  server.accept();
  const std::string_view text = "*3\r\n$3\r\nabc\r\n*2\r\n:7\r\n$-1\r\n$4\r\nlast\r\n+after\r\n";
  const std::size_t whole = text.find("+after");
  std::optional<OwnedReply> reply;
  for (std::size_t i = 0; i < whole; ++i) {
    EXPECT_FALSE(reply.has_value());
    server.say(text.substr(i, 1));
    while (!reply && i + 1 == whole) reply = link.read_if_there();
    if (!reply) reply = link.read_if_there();
  }
  server.say(text.substr(whole));
  const OwnedReply after = link.read();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->at(0).text(), "abc");  // what came after has not touched it
  EXPECT_EQ(reply->at(1).at(0).integer(), 7);
  EXPECT_TRUE(reply->at(1).at(1).nil());
  EXPECT_EQ(reply->at(2).text(), "last");
  EXPECT_EQ(after.text(), "after");
}

TEST(RedisReply, ManyAndLargePartsOutliveTheirConnection) {
  Speaker server;
  auto link = std::make_unique<RedisLink>(server.address());
  server.accept();
  constexpr std::size_t kParts = 2'000;
  std::string text = "*" + std::to_string(kParts) + "\r\n";
  for (std::size_t i = 0; i < kParts; ++i) {
    const std::string part(i % 37 == 0 ? 20'000 : i % 50, static_cast<char>('a' + i % 26));
    text += "$" + std::to_string(part.size()) + "\r\n" + part + "\r\n";
  }
  std::thread speaking([&] { server.say(text); });
  const OwnedReply reply = link->read();
  speaking.join();
  link.reset();
  ASSERT_EQ(reply.size(), kParts);
  for (std::size_t i = 0; i < kParts; ++i) {
    EXPECT_EQ(reply.at(i).text(), std::string(i % 37 == 0 ? 20'000 : i % 50, static_cast<char>('a' + i % 26)));
  }
}

TEST(RedisReply, ThatHasNoEndIsALostConnection) {
  Speaker server;
  RedisLink link(server.address());
  server.accept();
  server.say("*2\r\n$3\r\nabc\r\n$1");
  EXPECT_FALSE(link.read_if_there().has_value());
  std::thread cutting([&] { link.cut(); });
  EXPECT_THROW(static_cast<void>(link.read()), TierFailure);
  cutting.join();
  EXPECT_FALSE(link.usable());
}

TEST(RedisReply, OfAKindThatNobodyAsksForIsALostConnection) {
  for (const std::string_view text : {",1.5\r\n", "#t\r\n", "*2\r\n$1\r\na\r\n#f\r\n", "?\r\n"}) {
    Speaker server;
    RedisLink link(server.address());
    server.accept();
    server.say(text);
    EXPECT_THROW(static_cast<void>(link.read()), TierFailure);
    EXPECT_FALSE(link.usable());
  }
}

TEST(RedisReply, WithMorePartsThanMemoryHasRoomForIsALostConnection) {
  RedisArena arena;
  RedisNode* const array = arena.node(nullptr, 0, RedisNode::Kind::kArray);
  ASSERT_NE(array, nullptr);
  EXPECT_FALSE(arena.set_size(*array, std::numeric_limits<std::size_t>::max() / 2));
  EXPECT_EQ(arena.take(std::numeric_limits<std::size_t>::max()), nullptr);
  EXPECT_NE(arena.take(1), nullptr);
}

TEST(RedisLink, CommandsAreWrittenAsTheProtocolHasThem) {
  Speaker server;
  RedisLink link(server.address());
  server.accept();
  link.append({"SET", "k", std::string_view("a\0\r\n", 4)});
  link.set_asking(true);
  link.append({"GET", std::string(1234, 'x')});
  link.set_asking(false);
  link.append({"PING"});
  link.send();
  const std::string expected = std::string("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n").append("a\0\r\n", 4) +
                               "\r\n*1\r\n$6\r\nASKING\r\n*2\r\n$3\r\nGET\r\n$1234\r\n" + std::string(1234, 'x') +
                               "\r\n*1\r\n$4\r\nPING\r\n";
  EXPECT_EQ(server.hear(expected.size()), expected);
}

TEST(RedisArena, PartsDoNotOverlapAndAreAligned) {
  RedisArena arena;
  std::vector<std::pair<char*, std::size_t>> parts;
  for (std::size_t i = 1; i < 400; ++i) {
    const std::size_t size = i * i % 5'000 + 1;
    auto* const part = static_cast<char*>(arena.take(size));
    ASSERT_NE(part, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(part) % alignof(std::max_align_t), 0U);
    std::memset(part, static_cast<int>(i % 100), size);
    parts.emplace_back(part, size);
  }
  for (std::size_t i = 1; i < 400; ++i) {
    const auto [part, size] = parts[i - 1];
    EXPECT_EQ(part[0], static_cast<char>(i % 100));
    EXPECT_EQ(part[size - 1], static_cast<char>(i % 100));
  }
}

}  // namespace
}  // namespace stillwarm
