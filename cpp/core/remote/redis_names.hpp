// The names of a namespace's keys in Redis. Layout: see redis_scripts.hpp.
//
// Thread rule: immutable.
// Refuses to know: values, connections.
//
//   stillwarm:{NAMESPACE}:m          the marks, and so on; on a cluster stillwarm:{NAMESPACE.BUCKET}:m
//   stillwarm:{NAMESPACE}:e:TYPE:KEY an entry; '%' and ':' of the type are percent-escaped, the key stands as it is
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace stillwarm {

class RedisNames {
 public:
  explicit RedisNames(const std::string& namespace_name)
      : RedisNames(namespace_name, "stillwarm:{" + namespace_name + "}:") {}
  RedisNames(const std::string& namespace_name, std::uint32_t bucket)
      : RedisNames(namespace_name, beginning_of(namespace_name) + std::to_string(bucket) + "}:") {}

  static constexpr std::uint32_t kStripes = 4096;
  static constexpr std::uint32_t kBuckets = 64;  // of a cluster

  const std::string beginning;
  const std::string marks = beginning + "m", log = beginning + "l";
  const std::string tags_1 = beginning + "t1", tags_2 = beginning + "t2";
  const std::string hits = beginning + "h", channel;
  const std::string entries = beginning + "e:";

  static std::string spelled(std::string_view type) {
    std::string text;
    for (const char c : type) {
      if (c == '%') {
        text += "%25";
      } else if (c == ':') {
        text += "%3A";
      } else if (c == '\n') {
        text += "%0A";
      } else {
        text += c;
      }
    }
    return text;
  }
  std::string entry(std::string_view type, std::string_view key) const {
    std::string name;
    name.reserve(entries.size() + 3 * type.size() + 1 + key.size());
    name += entries;
    if (type.find_first_of("%:\n") == std::string_view::npos) {
      name += type;
    } else {
      name += spelled(type);
    }
    name += ':';
    return name += key;
  }
  // The key in an entry's name; nothing: it is no entry's.
  std::optional<std::string_view> key_of(std::string_view name) const {
    if (!name.starts_with(entries)) return std::nullopt;
    name.remove_prefix(entries.size());
    const auto colon = name.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    return name.substr(colon + 1);
  }
  // The type in an entry's name.
  std::string type_of(std::string_view name) const {
    name.remove_prefix(std::min(entries.size(), name.size()));
    name = name.substr(0, name.find(':'));
    std::string type;
    while (!name.empty()) {
      const std::string_view three = name.substr(0, 3);
      const bool escaped = three == "%25" || three == "%3A" || three == "%0A";
      type += !escaped ? name.front() : three == "%25" ? '%' : three == "%3A" ? ':' : '\n';
      name.remove_prefix(escaped ? 3 : 1);
    }
    return type;
  }
  std::string lease(std::string_view name) const { return (beginning + "x:").append(name); }
  std::string flushed(std::string_view process) const { return (beginning + "f:").append(process); }

  static std::uint32_t stripe(std::string_view key) noexcept {
    return static_cast<std::uint32_t>(hash(key) % kStripes);
  }
  // The highest bits, to which all others are spread: a bucket has keys of every stripe.
  static std::uint32_t bucket(std::string_view key) noexcept {
    return static_cast<std::uint32_t>((hash(key) * 0x9E3779B97F4A7C15ULL) >> 58);
  }
  // A lease is named TYPE, a line break, KEY (_tier_values.py), and is in the bucket of its entry: one script takes it
  // where there is no entry. The name of a type may have a line break too; then they may be apart, and it is taken
  // alone.
  static std::uint32_t bucket_of_lease(std::string_view name) noexcept {
    const auto end = name.find('\n');
    return bucket(end == std::string_view::npos ? name : name.substr(end + 1));
  }
  // What every key of every bucket begins with; the bucket's number follows.
  static std::string beginning_of(const std::string& namespace_name) { return "stillwarm:{" + namespace_name + "."; }

 private:
  RedisNames(const std::string& namespace_name, std::string begins)
      : beginning(std::move(begins)), channel("stillwarm:{" + namespace_name + "}:c") {}

  // FNV-1a: the same in every process.
  static std::uint64_t hash(std::string_view key) noexcept {
    std::uint64_t h = 14695981039346656037ULL;
    for (const char c : key) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
    return h ^ h >> 32;
  }
};

}  // namespace stillwarm
