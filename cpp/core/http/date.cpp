// How dates are read and written. Thread rule and what this refuses to know: see fields.hpp.
#include <algorithm>

#include "core/http/fields.hpp"
#include "core/http/grammar.hpp"

namespace stillwarm::http {
namespace {

constexpr Seconds kDay = 86400;
constexpr Seconds kEndOfYear9999 = 253402300799;
constexpr std::array<std::string_view, 7> kDayNames = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                                       "Thursday", "Friday", "Saturday"};
constexpr std::array<std::string_view, 12> kMonthNames = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                          "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

struct Civil {
  int year = 0;
  int month = 1;  // 1..12
  int day = 1;
  int hour = 0;
  int minute = 0;
  int second = 0;
  int weekday = 0;  // 0: Sunday
};

constexpr bool is_leap(int year) noexcept { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

constexpr int days_of_month(int year, int month) noexcept {
  constexpr std::array<int, 12> kDays = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return kDays[static_cast<std::size_t>(month - 1)] + (month == 2 && is_leap(year) ? 1 : 0);
}

// Leap days in the years before `year`, since the year 0.
constexpr Seconds leap_days_before(int year) noexcept {
  const Seconds y = year - 1;
  return year <= 0 ? 0 : y / 4 - y / 100 + y / 400 + 1;
}

constexpr Seconds days_before(int year) noexcept {  // from 1970-01-01 to the first day of `year`
  return 365 * (static_cast<Seconds>(year) - 1970) + leap_days_before(year) - leap_days_before(1970);
}

constexpr Seconds seconds_of(const Civil& at) noexcept {
  Seconds days = days_before(at.year) + at.day - 1;
  for (int month = 1; month < at.month; ++month) days += days_of_month(at.year, month);
  return ((days * 24 + at.hour) * 60 + at.minute) * 60 + at.second;
}

constexpr int weekday_of(Seconds at) noexcept {
  Seconds days = at / kDay;
  if (at % kDay < 0) --days;
  return static_cast<int>(((days + 4) % 7 + 7) % 7);  // 1970-01-01 was a Thursday
}

constexpr Civil civil_of(Seconds at) noexcept {  // from 1970 on
  Civil result;
  Seconds days = at / kDay;
  result.year = static_cast<int>(1970 + days / 366);  // at most a few years too early
  while (days_before(result.year + 1) <= days) ++result.year;
  days -= days_before(result.year);
  while (days >= days_of_month(result.year, result.month)) days -= days_of_month(result.year, result.month++);
  result.day = static_cast<int>(days) + 1;
  const auto second = static_cast<int>(at % kDay);
  result.hour = second / 3600;
  result.minute = second / 60 % 60;
  result.second = second % 60;
  result.weekday = weekday_of(at);
  return result;
}

static_assert(seconds_of({1970, 1, 1, 0, 0, 0, 4}) == 0);
static_assert(seconds_of({1994, 11, 6, 8, 49, 37, 0}) == 784111777);
static_assert(seconds_of({9999, 12, 31, 23, 59, 59, 5}) == kEndOfYear9999);

// Reads from the front of a text; after the first thing that is not as it must be, nothing is right any more.
class Reader {
 public:
  explicit Reader(std::string_view text) noexcept : rest_(text) {}

  bool is_finished() const noexcept { return good_ && rest_.empty(); }

  void literal(std::string_view text) noexcept {
    good_ = good_ && rest_.substr(0, text.size()) == text;
    if (good_) rest_.remove_prefix(text.size());
  }
  int number(std::size_t digits) noexcept {
    int result = 0;
    good_ = good_ && rest_.size() >= digits && grammar::token_length(rest_.substr(0, digits)) == digits;
    for (std::size_t i = 0; good_ && i < digits; ++i) {
      good_ = grammar::is_digit(rest_[i]);
      result = result * 10 + (rest_[i] - '0');
    }
    if (good_) rest_.remove_prefix(digits);
    return good_ ? result : 0;
  }
  // The place of the name that stands here, of which `letters` count (0: all).
  template <std::size_t N>
  int name(const std::array<std::string_view, N>& names, std::size_t letters) noexcept {
    for (std::size_t i = 0; good_ && i < N; ++i) {
      const std::string_view name = letters == 0 ? names[i] : names[i].substr(0, letters);
      if (rest_.substr(0, name.size()) != name) continue;
      rest_.remove_prefix(name.size());
      return static_cast<int>(i);
    }
    good_ = false;
    return 0;
  }
  void time(Civil& to) noexcept {
    to.hour = number(2);
    literal(":");
    to.minute = number(2);
    literal(":");
    to.second = number(2);
  }
  bool next_is(char c) const noexcept { return !rest_.empty() && rest_.front() == c; }

 private:
  std::string_view rest_;
  bool good_ = true;
};

// A leap second counts as the second before it: an answer must not count as fresher than it is.
std::optional<Seconds> checked(Civil at) noexcept {
  if (at.hour > 23 || at.minute > 59 || at.second > 60) return std::nullopt;
  if (at.day < 1 || at.day > days_of_month(at.year, at.month)) return std::nullopt;
  at.second = std::min(at.second, 59);
  const Seconds result = seconds_of(at);
  if (weekday_of(result) != at.weekday) return std::nullopt;
  return result;
}

std::optional<Seconds> parse_imf_fixdate(std::string_view text) noexcept {
  Reader reader(text);
  Civil at;
  at.weekday = reader.name(kDayNames, 3);
  reader.literal(", ");
  at.day = reader.number(2);
  reader.literal(" ");
  at.month = reader.name(kMonthNames, 0) + 1;
  reader.literal(" ");
  at.year = reader.number(4);
  reader.literal(" ");
  reader.time(at);
  reader.literal(" GMT");
  return reader.is_finished() ? checked(at) : std::nullopt;
}

std::optional<Seconds> parse_rfc850(std::string_view text, Seconds wall) noexcept {
  if (wall < 0 || wall > kEndOfYear9999) return std::nullopt;  // nothing places the two digits
  Reader reader(text);
  Civil at;
  at.weekday = reader.name(kDayNames, 0);
  reader.literal(", ");
  at.day = reader.number(2);
  reader.literal("-");
  at.month = reader.name(kMonthNames, 0) + 1;
  reader.literal("-");
  const int year = reader.number(2);
  reader.literal(" ");
  reader.time(at);
  reader.literal(" GMT");
  if (!reader.is_finished()) return std::nullopt;
  // The last such year that does not lie more than 50 years ahead.
  Civil limit = civil_of(wall);
  limit.year += 50;
  at.year = limit.year - limit.year % 100 + year;
  if (at.year > limit.year) at.year -= 100;
  if (at.year == limit.year && seconds_of(at) > seconds_of(limit)) at.year -= 100;
  return checked(at);
}

std::optional<Seconds> parse_asctime(std::string_view text) noexcept {
  Reader reader(text);
  Civil at;
  at.weekday = reader.name(kDayNames, 3);
  reader.literal(" ");
  at.month = reader.name(kMonthNames, 0) + 1;
  reader.literal(" ");
  if (reader.next_is(' ')) {
    reader.literal(" ");
    at.day = reader.number(1);
  } else {
    at.day = reader.number(2);
  }
  reader.literal(" ");
  reader.time(at);
  reader.literal(" ");
  at.year = reader.number(4);
  return reader.is_finished() ? checked(at) : std::nullopt;
}

}  // namespace

std::optional<Seconds> parse_date(std::string_view text, Seconds wall) noexcept {
  const std::string_view value = grammar::trimmed(text);
  const std::size_t comma = value.find(',');
  if (comma == std::string_view::npos) return parse_asctime(value);
  return comma == 3 ? parse_imf_fixdate(value) : parse_rfc850(value, wall);
}

std::array<char, 29> format_date(Seconds at) noexcept {
  const Civil civil = civil_of(std::clamp<Seconds>(at, 0, kEndOfYear9999));
  std::array<char, 29> result{};
  std::size_t length = 0;
  const auto text = [&](std::string_view part) {
    for (const char c : part) result[length++] = c;
  };
  const auto number = [&](int value, int unit) {
    for (; unit > 0; unit /= 10) result[length++] = static_cast<char>('0' + value / unit % 10);
  };
  text(kDayNames[static_cast<std::size_t>(civil.weekday)].substr(0, 3));
  text(", ");
  number(civil.day, 10);
  text(" ");
  text(kMonthNames[static_cast<std::size_t>(civil.month - 1)]);
  text(" ");
  number(civil.year, 1000);
  text(" ");
  number(civil.hour, 10);
  text(":");
  number(civil.minute, 10);
  text(":");
  number(civil.second, 10);
  text(" GMT");
  return result;
}

}  // namespace stillwarm::http
