// What the tests of the codec share: payloads, small, alike and different, as rows of a catalogue are; zstd's contexts.
//
// Thread rule: any thread.
// Refuses to know: what any test wants to show.
#pragma once

#include <sys/resource.h>
#include <zstd.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace stillwarm::test {

// The n-th row of a kind: the same text each time. Rows of two kinds have next to nothing in common.
inline std::string row(std::uint64_t n, int kind = 0) {
  std::mt19937_64 random(n * 2'654'435'761 + static_cast<std::uint64_t>(kind));
  const auto number = [&](std::uint64_t below) { return std::to_string(random() % below); };
  if (kind == 0) {
    return R"({"asin":"B0)" + number(99'999'999) + R"(","title":"Bottle number )" + number(9'999) +
           R"(","category":"Home & Kitchen","price":)" + number(9'999) + R"(,"currency":"EUR","sales_rank":)" +
           number(999'999) + R"(,"fulfilled_by":"warehouse","reviews":)" + number(999) + "}";
  }
  return "<visit><from>2001:db8::" + number(9'999) + "</from><path>/articles/" + number(99'999) +
         "/comments</path><agent>reader " + number(99) + "</agent><seconds>" + number(9'999) +
         "</seconds><again/></visit>";
}

inline std::vector<std::string> rows(std::uint64_t count, int kind = 0, std::uint64_t from = 0) {
  std::vector<std::string> list;
  for (std::uint64_t n = 0; n < count; ++n) list.push_back(row(from + n, kind));
  return list;
}

inline std::string noise(std::uint64_t n, std::size_t size) {
  std::mt19937_64 random(n + 1);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

inline constexpr std::size_t kMiB = std::size_t{1} << 20;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const noexcept { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const noexcept { ZSTD_freeDCtx(context); }
};

inline std::size_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

}  // namespace stillwarm::test
