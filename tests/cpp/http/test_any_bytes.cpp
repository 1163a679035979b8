// Any bytes, read by each parser and by the whole policy: nothing is read beyond the text, what is found is within its
// limits, nothing that is declared noexcept allocates, and nothing that is added to a response makes it more public.
//
// The texts are mutations of pieces of real fields, in buffers of their exact size so that the address sanitizer sees
// a byte too many.
#include <algorithm>
#include <array>
#include <memory>
#include <random>

#include "core/http/fields.hpp"
#include "http/rows.hpp"
#include "support.hpp"

namespace stillwarm::http {
namespace {

constexpr int kRounds = 100'000;

constexpr auto kPieces = std::to_array<std::string_view>({"no-store",
                                                          "private",
                                                          "public",
                                                          "max-age",
                                                          "s-maxage",
                                                          "must-revalidate",
                                                          "no-cache",
                                                          "must-understand",
                                                          "stale-if-error",
                                                          "stale-while-revalidate",
                                                          "only-if-cached",
                                                          "min-fresh",
                                                          "max-stale",
                                                          "=",
                                                          "\"",
                                                          "\\",
                                                          ",",
                                                          " ",
                                                          "\t",
                                                          "0",
                                                          "1",
                                                          "60",
                                                          "99999999999999999999",
                                                          "-",
                                                          "*",
                                                          "W/",
                                                          "\"1\"",
                                                          "bytes=",
                                                          "Accept",
                                                          "Cookie",
                                                          ";",
                                                          ":",
                                                          "GMT",
                                                          "Sun",
                                                          "Sun, 06 Nov 1994 08:49:37 GMT",
                                                          "Sunday, 06-Nov-94 08:49:37 GMT",
                                                          "Sun Nov  6 08:49:37 1994",
                                                          "Nov",
                                                          "06",
                                                          "29 Feb "});

class Texts {
 public:
  explicit Texts(std::uint64_t seed) : random_(seed) {}

  std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_() % n); }
  bool once_in(std::size_t n) { return below(n) == 0; }

  // Valid until the next call with the same `slot`.
  std::string_view next(std::size_t slot = 0) {
    std::string text;
    for (std::size_t n = below(6); n > 0; --n) {
      text += once_in(8) ? std::string(1, static_cast<char>(random_())) : std::string(kPieces[below(kPieces.size())]);
    }
    if (!text.empty() && once_in(4)) text[below(text.size())] = static_cast<char>(random_());
    if (!text.empty() && once_in(8)) text.resize(below(text.size()));
    return keep(slot, text);
  }
  // Mostly a range, and mostly of the first bytes.
  std::string range() {
    const auto position = [&] {
      return once_in(3) ? std::string() : once_in(8) ? std::string("99999999999999999999") : std::to_string(below(20));
    };
    return position() + (once_in(8) ? "" : "-") + position();
  }
  // A list that can mostly be read.
  std::string_view directives(std::size_t slot) {
    static constexpr auto kWhole = std::to_array<std::string_view>(
        {"no-store", "private", "Public", "max-age=60", "max-age=0", "s-maxage=60", "must-revalidate", "no-cache",
         "must-understand", "stale-if-error=5", "stale-while-revalidate=5", "proxy-revalidate", "immutable",
         "x=\"a, b\"", "max-age=x", "private=\"x\"", "only-if-cached", "min-fresh=1"});
    std::string text;
    for (std::size_t n = below(4); n > 0; --n) text.append(kWhole[below(kWhole.size())]).append(", ");
    return keep(slot, text);
  }
  std::string_view keep(std::size_t slot, const std::string& text) {
    kept_[slot] = std::make_unique<char[]>(text.size());
    std::copy(text.begin(), text.end(), kept_[slot].get());
    return {kept_[slot].get(), text.size()};
  }
  template <class T>
  T one_of(std::initializer_list<T> these) {
    return these.begin()[below(these.size())];
  }

 private:
  std::mt19937_64 random_;
  std::array<std::unique_ptr<char[]>, 20> kept_;
};

// A noexcept function that allocates in here ends the test program.
template <class Call>
auto without_allocation(Call call) {
  test::allocations_left = 0;
  const auto result = call();
  test::allocations_left = -1;
  return result;
}

bool is_seconds(Seconds seconds) { return seconds == kNever || (seconds >= 0 && seconds <= kMostSeconds); }

TEST(HttpAnyBytes, CacheControl) {
  Texts texts(1);
  for (int i = 0; i < kRounds; ++i) {
    const std::string_view text = texts.next();
    const Directives d = without_allocation([&] { return parse_cache_control(text); });
    for (const Seconds s :
         {d.max_age, d.s_maxage, d.stale_while_revalidate, d.stale_if_error, d.max_stale, d.min_fresh}) {
      ASSERT_TRUE(is_seconds(s)) << text;
    }
    const auto number = without_allocation([&] { return parse_delta_seconds(text); });
    ASSERT_TRUE(!number || (is_seconds(*number) && *number != kNever)) << text;
    // What stands before it, and can be read, is not undone by what comes behind.
    const std::string longer = std::string("no-store, private, max-age=5, ").append(text);
    const Directives more = parse_cache_control(longer);
    ASSERT_TRUE(more.no_store && more.private_ && more.max_age <= 5) << text;
    ASSERT_EQ(more.malformed, d.malformed) << text;
  }
}

TEST(HttpAnyBytes, Dates) {
  Texts texts(2);
  int dates = 0;
  for (int i = 0; i < kRounds; ++i) {
    const std::string_view text = texts.next();
    const auto at = without_allocation([&] { return parse_date(text, kWall); });
    if (!at) continue;
    ++dates;
    ASSERT_GE(*at, -62'167'219'200) << text;  // the year 0
    ASSERT_LE(*at, 253'402'300'799) << text;
    if (*at < 0) continue;
    const auto again = without_allocation([&] { return format_date(*at); });
    ASSERT_EQ(parse_date({again.data(), again.size()}, kNever), at) << text;
  }
  EXPECT_GT(dates, 500);
}

TEST(HttpAnyBytes, TagsVaryAndRanges) {
  Texts texts(3);
  int ranges = 0;
  int unusable = 0;
  for (int i = 0; i < kRounds; ++i) {
    const std::string_view text = texts.next(0);
    const std::string_view other = texts.next(1);
    const bool strong = without_allocation([&] { return is_strong_tag(text); });
    const bool matches = without_allocation([&] { return any_tag_matches(text, other); });
    ASSERT_TRUE(!strong || (any_tag_matches(text, text) && text.front() == '"' && text.back() == '"')) << text;
    // From quote to quote; npos where `other` is no tag, and then it is matched by "*" alone.
    const std::size_t quote = std::min(other.find('"'), other.size());
    ASSERT_TRUE(!matches || text.find('*') != std::string_view::npos ||
                (quote < other.size() && text.find(other.substr(quote, other.rfind('"') - quote + 1)) < text.size()))
        << text << " against " << other;

    const auto names = parse_vary(text);
    ASSERT_EQ(names.has_value(), without_allocation([&] { return is_vary_usable(text); })) << text;
    unusable += !names;
    if (names) {
      ASSERT_TRUE(std::is_sorted(names->begin(), names->end()));
      for (const std::string& name : *names) {
        ASSERT_FALSE(name.empty() || name == "*") << text;
        ASSERT_EQ(name.find_first_of(" ,;:\"ABCDEFGHIJKLMNOPQRSTUVWXYZ"), std::string::npos) << text;
      }
    }
    const std::string short_form = normalised(text);
    ASSERT_LE(short_form.size(), text.size());
    ASSERT_EQ(normalised(short_form), short_form) << text;

    const std::uint64_t size = texts.one_of<std::uint64_t>({0, 1, 60, 1'000, ~0ull});
    const std::string_view range =
        texts.keep(2, std::string("bytes=").append(texts.range()).append(texts.once_in(2) ? "" : text));
    const auto read = without_allocation([&] { return parse_range(range, size); });
    if (!read) continue;
    ++ranges;
    ASSERT_TRUE(read->first > read->last || read->last < size) << range << " of " << size;

    without_allocation([&] { return is_stored_field(text) || is_in_304(text) || is_kept_on_304(text); });
  }
  EXPECT_GT(ranges, 500);
  EXPECT_GT(unusable, 1'000);
}

TEST(HttpAnyBytes, CacheStatusStaysOneLineWithItsQuotesInPairs) {
  Texts texts(4);
  for (int i = 0; i < kRounds; ++i) {
    Status status;
    status.hit = texts.once_in(2);
    status.forward = Forward::kMiss;
    status.key = texts.next(0);
    status.detail = texts.next(1);
    std::string line;
    append_cache_status(line, status);
    bool quoted = false;
    for (std::size_t at = 0; at < line.size(); ++at) {
      ASSERT_TRUE(line[at] >= 0x20 && line[at] <= 0x7e) << line;
      if (line[at] == '"') quoted = !quoted;
      if (line[at] == '\\') {
        ASSERT_TRUE(quoted && (line[at + 1] == '"' || line[at + 1] == '\\')) << line;
        ++at;
      }
    }
    ASSERT_FALSE(quoted) << line;
  }
}

// ---- the whole policy

struct Case {
  Request request;
  Response response;
  Route route;
  std::string_view etag;
};

Case any_case(Texts& texts) {
  Case result;
  Request& q = result.request;
  q.method = texts.one_of<std::string_view>({"GET", "GET", "GET", "GET", "GET", "HEAD", "POST", "x"});
  q.authorization = texts.once_in(4);
  q.cookie = texts.once_in(4);
  q.body = texts.once_in(8);
  q.upgrade = texts.once_in(8);
  q.cache_control = texts.once_in(4) ? texts.directives(0) : std::string_view{};
  q.pragma = texts.once_in(8) ? texts.next(1) : std::string_view{};
  q.if_none_match = texts.once_in(4) ? texts.one_of<std::string_view>({"W/\"1\"", texts.next(2)}) : "";
  q.if_modified_since = texts.once_in(4) ? texts.next(3) : std::string_view{};
  q.if_match = texts.once_in(8) ? texts.next(4) : std::string_view{};
  q.range = texts.once_in(2) ? texts.keep(5, std::string("bytes=").append(texts.range())) : "";
  q.if_range = texts.once_in(4) ? texts.next(6) : std::string_view{};
  Response& r = result.response;
  r.status = texts.one_of(
      {200, 200, 200, 200, 203, 204, 206, 301, 302, 304, 404, 401, 500, 503, static_cast<int>(texts.below(700))});
  r.set_cookie = texts.once_in(8);
  r.content_range = texts.once_in(8);
  r.cache_control = texts.once_in(4) ? texts.next(7) : texts.directives(7);
  r.expires = texts.once_in(4) ? texts.next(8) : std::string_view{};
  r.date = texts.once_in(4) ? texts.next(9) : std::string_view{};
  r.age = texts.once_in(4) ? texts.next(10) : std::string_view{};
  result.etag = texts.once_in(2) ? texts.next(11) : std::string_view{};
  r.last_modified = texts.once_in(4) ? texts.next(12) : std::string_view{};
  r.vary = texts.once_in(4) ? texts.next(13) : std::string_view{};
  Route& o = result.route;
  o.ttl = texts.one_of<Nanos>({kUnset, 0, 5 * kSecond, kForever});
  o.stale_while_revalidate = texts.one_of<Nanos>({kUnset, 0, 5 * kSecond});
  o.stale_if_error = texts.one_of<Nanos>({kUnset, 0, 5 * kSecond});
  o.absent_ttl = texts.one_of<Nanos>({0, 0, 5 * kSecond});
  o.ttl_wins = texts.once_in(4);
  o.obeys_request = !texts.once_in(4);
  o.per_user = texts.once_in(4);
  o.declares_cookies = texts.once_in(4);
  o.heuristic = texts.once_in(4);
  return result;
}

TEST(HttpAnyBytes, WhatIsStoredIsForAllAndHasALifetime) {
  Texts texts(5);
  int stored = 0;
  int shared = 0;
  for (int i = 0; i < kRounds; ++i) {
    const Case c = any_case(texts);
    const After a = without_allocation([&] { return after(c.request, c.response, c.route, kWall); });
    ASSERT_EQ(a.store, a.why == Why::kNone);
    ASSERT_TRUE(a.age >= 0 && a.age <= kMostSeconds);
    stored += a.store;
    shared += a.shareable;
    if (a.store) {
      ASSERT_TRUE(a.shareable && a.ttl > 0 && a.stale_while_revalidate >= 0 && a.stale_if_error >= 0);
      ASSERT_NE(c.response.status, 206);
    } else {
      ASSERT_TRUE(a.ttl == 0 && a.stale_while_revalidate == 0 && a.stale_if_error == 0);
    }
    if (!a.shareable) continue;
    ASSERT_FALSE(c.response.set_cookie || c.response.content_range || c.request.method != "GET");
    ASSERT_TRUE(!c.request.cookie || c.route.declares_cookies || c.route.per_user);
    ASSERT_TRUE(!c.request.authorization || c.route.per_user || a.shared_with_authorization);
  }
  EXPECT_GT(stored, 1'000);
  EXPECT_GT(shared - stored, 1'000);
}

TEST(HttpAnyBytes, NothingThatIsAddedMakesAResponseMorePublic) {
  static constexpr auto kAdded = std::to_array<std::string_view>(
      {"no-store", "private", "no-cache", "max-age=0", "max-age=x", "s-maxage=0", "private=\"a\"", "x=\"", "\x01"});
  Texts texts(6);
  for (int i = 0; i < kRounds; ++i) {
    const Case c = any_case(texts);
    Case more = c;
    const std::size_t what = texts.below(kAdded.size() + 5);
    std::string joined(c.response.cache_control);
    if (what < kAdded.size()) {
      joined.append(", ").append(kAdded[what]);
      more.response.cache_control = joined;
      // The one that says more than it takes away: what has an s-maxage is for all (RFC 9111, 3.5) and has a lifetime.
      if (kAdded[what] == "s-maxage=0" && c.request.authorization) continue;
    } else if (what == kAdded.size()) {
      more.response.set_cookie = true;
    } else if (what == kAdded.size() + 1) {
      more.response.content_range = true;
    } else if (what == kAdded.size() + 2) {
      more.response.vary = "*";
    } else if (what == kAdded.size() + 3) {
      more.request.authorization = true;
    } else {
      more.request.cookie = true;
    }
    const After a = after(c.request, c.response, c.route, kWall);
    const After b = after(more.request, more.response, more.route, kWall);
    ASSERT_LE(b.store, a.store) << c.response.cache_control << " with addition " << what;
    ASSERT_LE(b.shareable, a.shareable) << c.response.cache_control << " with addition " << what;
    ASSERT_LE(b.ttl, a.ttl) << c.response.cache_control << " with addition " << what;
  }
}

TEST(HttpAnyBytes, WhatIsAnsweredIsWithinWhatIsStored) {
  Texts texts(7);
  std::array<int, 3> seen{};
  for (int i = 0; i < kRounds; ++i) {
    const Case c = any_case(texts);
    const Before b = without_allocation([&] { return before(c.request, c.route); });
    ASSERT_TRUE(b.look || !b.store);
    ASSERT_TRUE(b.look || b.why != Why::kNone);
    ASSERT_TRUE(!b.invalidates || b.why == Why::kMethod);
    Stored stored;
    stored.status = c.response.status;
    stored.etag = texts.once_in(2) ? "\"1\"" : c.etag;
    stored.last_modified = c.response.last_modified;
    stored.date = c.response.date;
    stored.size = texts.below(12);
    stored.age = static_cast<Nanos>(texts.below(100)) * kSecond;
    stored.fresh_left = (static_cast<Nanos>(texts.below(100)) - 50) * kSecond;
    stored.shared_with_authorization = texts.once_in(2);
    const Use u = without_allocation([&] { return use(b, stored, c.route); });
    ASSERT_TRUE(u == Use::kPass || !b.authorization || stored.shared_with_authorization || c.route.per_user);
    const Answer a = without_allocation([&] { return answer(c.request, stored, kWall); });
    ASSERT_TRUE(a.status == stored.status || a.status == 304 || a.status == 206 || a.status == 416);
    if (a.status == stored.status) continue;
    ASSERT_TRUE(stored.status >= 200 && stored.status <= 299);
    ASSERT_TRUE(a.status != 304 || !c.request.if_none_match.empty() || !c.request.if_modified_since.empty());
    ASSERT_TRUE(a.status != 206 || (a.first <= a.last && a.last < stored.size));
    seen[a.status == 304 ? 0 : a.status == 206 ? 1 : 2] += 1;
  }
  for (const int n : seen) EXPECT_GT(n, 100);
}

}  // namespace
}  // namespace stillwarm::http
