// A reply of Redis's: what kind it is, what it says. A whole reply lives in one piece of memory.
//
// Thread rule: immutable once it is read; one thread at a time before.
// Refuses to know: connections, and who parses. It is built from the outside in: an array before its elements.
//
// A look-up brings some twenty parts, most of them a few bytes long: with memory of its own for each, that took longer
// than all else that is done for it here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace stillwarm {

struct RedisNode {
  enum class Kind : std::uint8_t { kNil, kText, kStatus, kError, kInteger, kArray };
  Kind kind = Kind::kNil;
  long long integer = 0;
  std::size_t size = 0;  // bytes of the text, or elements
  const char* text = nullptr;
  RedisNode* elements = nullptr;
};

// Memory that grows, and is given back as a whole.
class RedisArena {
 public:
  RedisArena() = default;
  RedisArena(const RedisArena&) = delete;
  RedisArena& operator=(const RedisArena&) = delete;
  ~RedisArena() = default;

  // Null: no memory.
  void* take(std::size_t bytes) noexcept;
  // The i-th element of the array, or a reply of its own. Null: no memory.
  RedisNode* node(RedisNode* array, std::size_t i, RedisNode::Kind kind) noexcept;
  // Copies. False: no memory.
  bool set_text(RedisNode& node, std::string_view text) noexcept;
  bool set_size(RedisNode& array, std::size_t elements) noexcept;

 private:
  static constexpr std::size_t kFirst = 944;  // with the rest of it what malloc has at hand per thread
  static constexpr std::size_t kBlock = 16'384;

  alignas(std::max_align_t) std::byte first_[kFirst];
  std::byte* next_ = first_;
  std::size_t left_ = kFirst;
  std::vector<std::unique_ptr<std::byte[]>> more_;
};

// A reply, or a part of one. What is not of the expected kind throws TierFailure: it is no answer to what was asked.
class RedisReply {
 public:
  explicit RedisReply(const RedisNode* node) noexcept : node_(node) {}

  bool nil() const noexcept { return node_->kind == RedisNode::Kind::kNil; }
  bool array() const noexcept { return node_->kind == RedisNode::Kind::kArray; }
  bool is_integer() const noexcept { return node_->kind == RedisNode::Kind::kInteger; }
  std::optional<std::string_view> error() const noexcept;  // "OOM command not allowed ..."
  std::string_view text() const;                           // of a bulk string or a status
  long long integer() const;                               // also of digits in a string
  std::size_t size() const;                                // of an array
  RedisReply at(std::size_t i) const;

 private:
  const RedisNode* node_;
};

// A reply that owns itself.
class OwnedReply : public RedisReply {
 public:
  OwnedReply(const RedisNode* node, std::unique_ptr<RedisArena> arena) noexcept
      : RedisReply(node), arena_(std::move(arena)) {}

 private:
  std::unique_ptr<RedisArena> arena_;
};

}  // namespace stillwarm
