// How values are compressed and expanded. Thread rule, limits and what this refuses to know: see the header.
#include "core/codec/compressor.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zdict.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <new>
#include <vector>

namespace stillwarm {

// Beside the unnamed namespace: Dictionary::Tables, which others may name, has members of it.
struct FreeZstd {
  void operator()(ZSTD_CCtx* context) const noexcept { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const noexcept { ZSTD_freeDCtx(context); }
  void operator()(ZSTD_CDict* tables) const noexcept { ZSTD_freeCDict(tables); }
  void operator()(ZSTD_DDict* tables) const noexcept { ZSTD_freeDDict(tables); }
};

namespace {

ZSTD_CCtx* compressing() {
  static thread_local const std::unique_ptr<ZSTD_CCtx, FreeZstd> context(ZSTD_createCCtx());
  if (context == nullptr) throw std::bad_alloc();
  return context.get();
}

ZSTD_DCtx* expanding() {
  static thread_local const std::unique_ptr<ZSTD_DCtx, FreeZstd> context([] {
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

constexpr int kDictionaryLevel = 3;
constexpr std::size_t kDictionaryHead = 8;  // magic, number
constexpr std::string_view kDictionaryMagic("\x37\xA4\x30\xEC", 4);

std::uint64_t id_of(std::string_view bytes) noexcept {
  constexpr std::uint64_t kMask = (std::uint64_t{1} << kDictionaryIdBits) - 1;
  return std::max<std::uint64_t>(1, XXH3_64bits(bytes.data(), bytes.size()) & kMask);
}

// Of `room` bytes that were made at the end of `out` for the frame of `raw`, keeps what is used. False: it fails or
// does not pay.
bool kept(std::size_t size, std::size_t raw, std::size_t before, std::string& out) {
  if (ZSTD_isError(size) || beyond_ratio(raw, size)) {
    out.resize(before);
    return false;
  }
  out.resize(before + size);
  return true;
}

// What needs more room than this does not pay, and fails for want of it.
std::size_t room_for(std::size_t raw) noexcept { return raw - raw / 10; }

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

// The tables are made when they are needed first: most processes compress with one dictionary and read with several.
struct Dictionary::Tables {
  explicit Tables(ZSTD_DDict* tables) noexcept : expands(tables) {}

  const ZSTD_CDict* compresses(std::string_view bytes) {
    std::call_once(once, [&] {
      made.reset(ZSTD_createCDict(bytes.data(), bytes.size(), kDictionaryLevel));
      if (made == nullptr) throw std::bad_alloc();
      size.store(ZSTD_sizeof_CDict(made.get()), std::memory_order_relaxed);
    });
    return made.get();
  }

  const std::unique_ptr<ZSTD_DDict, FreeZstd> expands;
  std::once_flag once;
  std::unique_ptr<ZSTD_CDict, FreeZstd> made;
  std::atomic<std::size_t> size{0};
};

std::shared_ptr<const Dictionary> Dictionary::make(std::string_view bytes) {
  if (bytes.size() <= kDictionaryHead || bytes.size() > kLargestDictionary) return nullptr;
  if (bytes.substr(0, kDictionaryMagic.size()) != kDictionaryMagic) return nullptr;
  const std::size_t head = ZDICT_getDictHeaderSize(bytes.data(), bytes.size());
  if (ZDICT_isError(head) || head >= bytes.size()) return nullptr;
  auto tables = std::make_unique<Tables>(ZSTD_createDDict(bytes.data(), bytes.size()));
  if (tables->expands == nullptr) return nullptr;
  return std::shared_ptr<const Dictionary>(new Dictionary(bytes, std::move(tables)));
}

Dictionary::Dictionary(std::string_view bytes, std::unique_ptr<Tables> tables)
    : id_(id_of(bytes)), bytes_(bytes), tables_(std::move(tables)) {}

Dictionary::~Dictionary() = default;

std::size_t Dictionary::memory() const noexcept {
  return sizeof(*this) + bytes_.size() + ZSTD_sizeof_DDict(tables_->expands.get()) +
         tables_->size.load(std::memory_order_relaxed);
}

std::string train_dictionary(std::span<const std::string> samples, std::size_t capacity) {
  std::string all;
  std::vector<std::size_t> sizes;
  for (const std::string& sample : samples) {
    all += sample;
    sizes.push_back(sample.size());
  }
  std::string out(std::min(capacity, kLargestDictionary), '\0');
  const std::size_t size =
      ZDICT_trainFromBuffer(out.data(), out.size(), all.data(), sizes.data(), static_cast<unsigned>(sizes.size()));
  if (ZDICT_isError(size)) return {};
  out.resize(size);
  if (size > kDictionaryHead) out.replace(kDictionaryMagic.size(), 4, 4, '\0');  // a number that frames would repeat
  return out;
}

bool compress(std::string_view raw, const CompressOptions& options, std::string& out) {
  if (options.above == 0 || raw.size() <= options.above) return false;
  ZSTD_CCtx* context = compressing();
  const std::size_t before = out.size(), room = room_for(raw.size());
  out.resize(before + room);
  return kept(ZSTD_compressCCtx(context, out.data() + before, room, raw.data(), raw.size(), options.level), raw.size(),
              before, out);
}

bool compress(std::string_view raw, const CompressOptions& options, const Dictionary& dictionary, std::string& out) {
  if (options.above == 0 || raw.size() < kWithDictionaryFrom) return false;
  ZSTD_CCtx* context = compressing();
  const ZSTD_CDict* tables = dictionary.tables().compresses(dictionary.bytes());
  const std::size_t before = out.size(), room = room_for(raw.size());
  out.resize(before + room);
  return kept(ZSTD_compress_usingCDict(context, out.data() + before, room, raw.data(), raw.size(), tables), raw.size(),
              before, out);
}

Expanded decompress(std::string_view frame, const DecodeLimits& limits, std::string& out,
                    const Dictionary* dictionary) {
  out.clear();
  if (!is_zstd(frame)) return Expanded::kDamaged;
  const unsigned long long told = ZSTD_getFrameContentSize(frame.data(), frame.size());
  if (told == ZSTD_CONTENTSIZE_ERROR) return Expanded::kDamaged;
  if (window_log(frame) > kLargestWindowLog) return Expanded::kTooLarge;
  if (told == ZSTD_CONTENTSIZE_UNKNOWN) {
    if (dictionary != nullptr) return Expanded::kDamaged;
    return expand_untold(frame, limits.largest < limits.largest_untold ? limits.largest : limits.largest_untold, out);
  }
  if (told > limits.largest || beyond_ratio(told, frame.size())) return Expanded::kTooLarge;
  if (ZSTD_findFrameCompressedSize(frame.data(), frame.size()) != frame.size()) return Expanded::kDamaged;
  out.resize(told);
  const std::size_t size = dictionary != nullptr
                               ? ZSTD_decompress_usingDDict(expanding(), out.data(), out.size(), frame.data(),
                                                            frame.size(), dictionary->tables().expands.get())
                               : ZSTD_decompressDCtx(expanding(), out.data(), out.size(), frame.data(), frame.size());
  if (ZSTD_isError(size)) return refused(size, out);
  if (size == told) return Expanded::kOk;
  out.clear();
  return Expanded::kDamaged;
}

}  // namespace stillwarm
