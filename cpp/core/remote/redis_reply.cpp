#include "core/remote/redis_reply.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <new>

#include "core/remote/remote_tier.hpp"

namespace stillwarm {

namespace {

[[noreturn]] void unexpected() {
  throw TierFailure({TierFault::kUnavailable, "", "the server's answer is not what was asked for"});
}

}  // namespace

void* RedisArena::take(std::size_t bytes) noexcept {
  constexpr std::size_t kAlign = alignof(std::max_align_t);
  if (bytes > std::numeric_limits<std::size_t>::max() - kAlign) return nullptr;
  bytes = (bytes + kAlign - 1) / kAlign * kAlign;
  if (bytes <= left_) {
    left_ -= bytes;
    return std::exchange(next_, next_ + bytes);
  }
  const bool alone = bytes > kBlock / 4;
  try {
    std::byte* const block =
        more_.emplace_back(std::make_unique_for_overwrite<std::byte[]>(alone ? bytes : kBlock)).get();
    if (alone) return block;
    next_ = block + bytes;
    left_ = kBlock - bytes;
    return block;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

RedisNode* RedisArena::node(RedisNode* array, std::size_t i, RedisNode::Kind kind) noexcept {
  void* const place = array == nullptr ? take(sizeof(RedisNode)) : array->elements + i;
  if (place == nullptr) return nullptr;
  auto* const made = new (place) RedisNode;
  made->kind = kind;
  return made;
}

bool RedisArena::set_text(RedisNode& node, std::string_view text) noexcept {
  void* const place = take(text.size());
  if (place == nullptr) return false;
  std::memcpy(place, text.data(), text.size());
  node.text = static_cast<const char*>(place);
  node.size = text.size();
  return true;
}

bool RedisArena::set_size(RedisNode& array, std::size_t elements) noexcept {
  if (elements > std::numeric_limits<std::size_t>::max() / sizeof(RedisNode)) return false;
  array.elements = static_cast<RedisNode*>(take(elements * sizeof(RedisNode)));
  array.size = elements;
  return array.elements != nullptr;
}

std::optional<std::string_view> RedisReply::error() const noexcept {
  if (node_->kind != RedisNode::Kind::kError) return std::nullopt;
  return std::string_view(node_->text, node_->size);
}

std::string_view RedisReply::text() const {
  if (node_->kind != RedisNode::Kind::kText && node_->kind != RedisNode::Kind::kStatus) unexpected();
  return {node_->text, node_->size};
}

long long RedisReply::integer() const {
  if (node_->kind == RedisNode::Kind::kInteger) return node_->integer;
  const std::string_view digits = text();
  long long number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size()) unexpected();
  return number;
}

std::size_t RedisReply::size() const {
  if (!array()) unexpected();
  return node_->size;
}

RedisReply RedisReply::at(std::size_t i) const {
  if (i >= size()) unexpected();
  return RedisReply(node_->elements + i);
}

}  // namespace stillwarm
