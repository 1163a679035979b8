// How values are compressed and expanded. Thread rule, limits and what this refuses to know: see the header.
#include "core/codec/compressor.hpp"

#include <zstd.h>
#include <zstd_errors.h>

#include <memory>
#include <new>

namespace stillwarm {
namespace {

struct Free {
  void operator()(ZSTD_CCtx* context) const noexcept { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const noexcept { ZSTD_freeDCtx(context); }
};

ZSTD_CCtx* compressing() {
  static thread_local const std::unique_ptr<ZSTD_CCtx, Free> context(ZSTD_createCCtx());
  if (context == nullptr) throw std::bad_alloc();
  return context.get();
}

ZSTD_DCtx* expanding() {
  static thread_local const std::unique_ptr<ZSTD_DCtx, Free> context([] {
    ZSTD_DCtx* made = ZSTD_createDCtx();
    if (made != nullptr) ZSTD_DCtx_setParameter(made, ZSTD_d_windowLogMax, static_cast<int>(kLargestWindowLog));
    return made;
  }());
  if (context == nullptr) throw std::bad_alloc();
  return context.get();
}

Expanded refused(std::size_t code, std::string& out) {
  out.clear();
  if (ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation) throw std::bad_alloc();
  return Expanded::kDamaged;
}

// Of the frame header (RFC 8878, 3.1.1.1), what the stable interface of zstd does not tell. Zero: a single segment.
// Requires a frame of which ZSTD_getFrameContentSize could read the header.
unsigned window_log(std::string_view frame) noexcept {
  const auto descriptor = static_cast<unsigned char>(frame[4]);
  constexpr unsigned kSingleSegment = 0x20;
  if (descriptor & kSingleSegment || frame.size() < 6) return 0;
  const auto window = static_cast<unsigned char>(frame[5]);
  constexpr unsigned kSmallest = 10;
  return kSmallest + (window >> 3) + ((window & 7) != 0 ? 1 : 0);  // the mantissa adds up to seven eighths
}

bool is_zstd(std::string_view frame) noexcept {
  constexpr std::string_view kMagic("\x28\xB5\x2F\xFD", 4);
  return frame.size() > kMagic.size() && frame.substr(0, kMagic.size()) == kMagic;  // not a skippable frame
}

bool beyond_ratio(std::size_t raw, std::size_t frame) noexcept {
  return raw > kAnyRatioBelow && raw / kHighestRatio > frame;
}

Expanded expand_untold(std::string_view frame, std::size_t most, std::string& out) {
  ZSTD_DCtx* context = expanding();
  ZSTD_DCtx_reset(context, ZSTD_reset_session_only);
  out.resize(most);
  ZSTD_inBuffer in{frame.data(), frame.size(), 0};
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  const std::size_t left = ZSTD_decompressStream(context, &to, &in);
  if (ZSTD_isError(left)) return refused(left, out);
  out.resize(to.pos);
  if (left == 0 && in.pos == in.size) return Expanded::kOk;
  const bool full = to.pos == most;
  out.clear();
  return full ? Expanded::kTooLarge : Expanded::kDamaged;
}

}  // namespace

bool compress(std::string_view raw, const CompressOptions& options, std::string& out) {
  if (options.above == 0 || raw.size() <= options.above) return false;
  ZSTD_CCtx* context = compressing();
  const std::size_t before = out.size();
  const std::size_t room = raw.size() - raw.size() / 10;  // what needs more does not pay, and fails for want of room
  out.resize(before + room);
  const std::size_t size = ZSTD_compressCCtx(context, out.data() + before, room, raw.data(), raw.size(), options.level);
  if (ZSTD_isError(size) || beyond_ratio(raw.size(), size)) {
    out.resize(before);
    return false;
  }
  out.resize(before + size);
  return true;
}

Expanded decompress(std::string_view frame, const DecodeLimits& limits, std::string& out) {
  out.clear();
  if (!is_zstd(frame)) return Expanded::kDamaged;
  const unsigned long long told = ZSTD_getFrameContentSize(frame.data(), frame.size());
  if (told == ZSTD_CONTENTSIZE_ERROR) return Expanded::kDamaged;
  if (window_log(frame) > kLargestWindowLog) return Expanded::kTooLarge;
  if (told == ZSTD_CONTENTSIZE_UNKNOWN) {
    return expand_untold(frame, limits.largest < limits.largest_untold ? limits.largest : limits.largest_untold, out);
  }
  if (told > limits.largest || beyond_ratio(told, frame.size())) return Expanded::kTooLarge;
  if (ZSTD_findFrameCompressedSize(frame.data(), frame.size()) != frame.size()) return Expanded::kDamaged;
  out.resize(told);
  const std::size_t size = ZSTD_decompressDCtx(expanding(), out.data(), out.size(), frame.data(), frame.size());
  if (ZSTD_isError(size)) return refused(size, out);
  if (size == told) return Expanded::kOk;
  out.clear();
  return Expanded::kDamaged;
}

}  // namespace stillwarm
