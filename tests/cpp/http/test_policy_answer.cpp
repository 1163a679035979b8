// What a request gets from a stored answer: the whole, 304, a part, or 416; the order of RFC 9110, 13.2.2.
#include "http/rows.hpp"

namespace stillwarm::http {
namespace {

constexpr std::string_view kModified = "Sat, 14 Jun 2025 15:06:40 GMT";
constexpr std::string_view kBeforeIt = "Sat, 14 Jun 2025 15:06:39 GMT";
constexpr std::string_view kAfterIt = "Sat, 14 Jun 2025 15:06:41 GMT";

Stored page() {
  Stored stored;
  stored.etag = "\"1\"";
  stored.last_modified = kModified;
  stored.date = kWallDate;
  stored.size = 100;
  return stored;
}

struct ConditionRow {
  const char* rule;
  std::string_view if_none_match;
  std::string_view if_modified_since;
  int status;
};

TEST(HttpAnswer, ConditionsOfAGetAndAHead) {
  const ConditionRow rows[] = {
      {"no condition", "", "", 200},
      {"13.1.2", "\"1\"", "", 304},
      {"13.1.2", "\"2\"", "", 200},
      {"13.1.2 weak comparison", "W/\"1\"", "", 304},
      {"13.1.2 a list", "\"2\", \"1\"", "", 304},
      {"13.1.2 any", "*", "", 304},
      {"13.1.2 not readable", "1", "", 200},
      {"13.1.3 the same", "", kModified, 304},
      {"13.1.3 later", "", kAfterIt, 304},
      {"13.1.3 earlier", "", kBeforeIt, 200},
      {"13.1.3 a date that is to come is a date", "", "Tue, 15 Jun 2055 00:00:00 GMT", 304},
      {"13.1.3 no date", "", "0", 200},
      {"13.1.3 no date", "", "1750000000", 200},
      {"13.1.3 two dates", "", "Sat, 14 Jun 2025 15:06:41 GMT, Sat, 14 Jun 2025 15:06:41 GMT", 200},
      {"13.1.3 asctime", "", "Sat Jun 14 15:06:40 2025", 304},
      {"13.1.3 RFC 850", "", "Saturday, 14-Jun-25 15:06:40 GMT", 304},
      {"13.2.2 the tag alone counts", "\"2\"", kAfterIt, 200},
      {"13.2.2 the tag alone counts", "\"1\"", kBeforeIt, 304},
      {"13.2.2 the tag alone counts, readable or not", "1", kAfterIt, 200},
  };
  for (const ConditionRow& row : rows) {
    SCOPED_TRACE(row.rule);
    for (const std::string_view method : {"GET", "HEAD"}) {
      const Request request = get([&](Request& r) {
        r.method = method;
        r.if_none_match = row.if_none_match;
        r.if_modified_since = row.if_modified_since;
      });
      EXPECT_EQ(answer(request, page(), kWall).status, row.status) << method;
    }
    const Request post = get([&](Request& r) {
      r.method = "POST";
      r.if_none_match = row.if_none_match;
      r.if_modified_since = row.if_modified_since;
    });
    EXPECT_EQ(answer(post, page(), kWall).status, 200) << "13.1.3: GET and HEAD alone";
  }
}

TEST(HttpAnswer, WithoutATimeOfDayTwoDigitYearsAreNotReadable) {
  const Request request = get([](Request& r) { r.if_modified_since = "Saturday, 14-Jun-25 15:06:40 GMT"; });
  EXPECT_EQ(answer(request, page(), kWall).status, 304);
  EXPECT_EQ(answer(request, page()).status, 200);
}

TEST(HttpAnswer, WhatIsStoredWithoutValidators) {
  Stored bare;
  bare.size = 100;
  EXPECT_EQ(answer(get([](Request& r) { r.if_none_match = "\"1\""; }), bare, kWall).status, 200);
  EXPECT_EQ(answer(get([](Request& r) { r.if_none_match = "*"; }), bare, kWall).status, 304);
  const Request since = get([](Request& r) { r.if_modified_since = kWallDate; });
  EXPECT_EQ(answer(since, bare, kWall).status, 200);
  bare.date = kWallDate;
  EXPECT_EQ(answer(since, bare, kWall).status, 304) << "RFC 9111, 4.3.2: Date stands in for Last-Modified";
  bare.last_modified = "unknown";
  EXPECT_EQ(answer(since, bare, kWall).status, 200) << "but not for one that cannot be read";
}

TEST(HttpAnswer, ConditionsAreForSuccessAlone) {  // RFC 9110, 13.2.1
  const Request request = get([](Request& r) { r.if_none_match = "\"1\"", r.range = "bytes=0-4"; });
  const Request part = get([](Request& r) { r.range = "bytes=0-4"; });
  for (const int status : {200, 203, 204, 300, 301, 308, 404, 410}) {
    SCOPED_TRACE(status);
    Stored stored = page();
    stored.status = status;
    EXPECT_EQ(answer(request, stored, kWall).status, status < 300 ? 304 : status);
    EXPECT_EQ(answer(part, stored, kWall).status, status == 200 ? 206 : status) << "14.2";
  }
}

struct RangeAnswerRow {
  const char* rule;
  std::string_view range;
  std::string_view if_range;
  int status;
  std::uint64_t first;
  std::uint64_t last;
};

TEST(HttpAnswer, Ranges) {
  const RangeAnswerRow rows[] = {
      {"14.2", "bytes=10-19", "", 206, 10, 19},
      {"14.2 all of it", "bytes=0-", "", 206, 0, 99},
      {"14.1.2", "bytes=-10", "", 206, 90, 99},
      {"14.1.2", "bytes=90-200", "", 206, 90, 99},
      {"15.5.17", "bytes=100-", "", 416, 0, 0},
      {"15.5.17", "bytes=-0", "", 416, 0, 0},
      {"14.2 several: the whole", "bytes=0-1,4-5", "", 200, 0, 0},
      {"14.2 not valid: the whole", "bytes=5-1", "", 200, 0, 0},
      {"14.2 another unit: the whole", "items=0-1", "", 200, 0, 0},
      {"13.1.5 the same tag", "bytes=10-19", "\"1\"", 206, 10, 19},
      {"13.1.5 the same tag", "bytes=10-19", " \"1\" ", 206, 10, 19},
      {"13.1.5 another", "bytes=10-19", "\"2\"", 200, 0, 0},
      {"13.1.5 another, out of range", "bytes=100-", "\"2\"", 200, 0, 0},
      {"13.1.5 the same tag, out of range", "bytes=100-", "\"1\"", 416, 0, 0},
      {"13.1.5 strong comparison", "bytes=10-19", "W/\"1\"", 200, 0, 0},
      {"13.1.5 one tag, no list", "bytes=10-19", "\"1\", \"2\"", 200, 0, 0},
      {"13.1.5 no star", "bytes=10-19", "*", 200, 0, 0},
      {"13.1.5 not readable", "bytes=10-19", "1", 200, 0, 0},
      {"13.1.5 the same date", "bytes=10-19", kModified, 206, 10, 19},
      {"13.1.5 the same date in another form", "bytes=10-19", "Sat Jun 14 15:06:40 2025", 206, 10, 19},
      {"13.1.5 an earlier date", "bytes=10-19", kBeforeIt, 200, 0, 0},
      {"13.1.5 a later date", "bytes=10-19", kAfterIt, 200, 0, 0},
      {"13.1.5 without a range", "", "\"1\"", 200, 0, 0},
  };
  for (const RangeAnswerRow& row : rows) {
    SCOPED_TRACE(std::string(row.rule).append(": ").append(row.range));
    Request request = get([&](Request& r) {
      r.range = row.range;
      r.if_range = row.if_range;
    });
    const Answer result = answer(request, page(), kWall);
    EXPECT_EQ(result.status, row.status);
    EXPECT_EQ(result.first, row.first);
    EXPECT_EQ(result.last, row.last);
    request.method = "HEAD";
    EXPECT_EQ(answer(request, page(), kWall).status, 200) << "14.2: GET alone";
    request.method = "GET";
    request.if_none_match = "\"1\"";
    EXPECT_EQ(answer(request, page(), kWall).status, 304) << "13.2.2: before the range";
    request.if_none_match = "\"2\"";
    EXPECT_EQ(answer(request, page(), kWall).status, row.status);
  }
}

TEST(HttpAnswer, AWeakTagOrAnUnsureDateIsNoReasonForAPart) {  // RFC 9110, 8.8.2.2 and 13.1.5
  const auto status = [](std::string_view if_range, const Stored& stored) {
    return answer(get([&](Request& r) { r.range = "bytes=0-4", r.if_range = if_range; }), stored, kWall).status;
  };
  Stored stored = page();
  stored.etag = "W/\"1\"";
  EXPECT_EQ(status("W/\"1\"", stored), 200);
  EXPECT_EQ(status("\"1\"", stored), 200);
  EXPECT_EQ(status(kModified, stored), 206);
  stored.date = kModified;  // it may have changed again in that second
  EXPECT_EQ(status(kModified, stored), 200);
  stored.date = kAfterIt;
  EXPECT_EQ(status(kModified, stored), 206);
  stored.date = "";
  EXPECT_EQ(status(kModified, stored), 200);
  stored = page();
  stored.last_modified = "";
  EXPECT_EQ(status(kModified, stored), 200);
  stored.etag = "";
  EXPECT_EQ(status("\"1\"", stored), 200);
  EXPECT_EQ(status("\"\"", stored), 200);
}

TEST(HttpAnswer, RangesOfNothing) {
  Stored empty = page();
  empty.size = 0;
  const auto status = [&](std::string_view range) {
    return answer(get([&](Request& r) { r.range = range; }), empty, kWall).status;
  };
  EXPECT_EQ(status("bytes=0-"), 416);
  EXPECT_EQ(status("bytes=0-0"), 416);
  EXPECT_EQ(status("bytes=-0"), 416);
  EXPECT_EQ(status("bytes=-5"), 200);
}

}  // namespace
}  // namespace stillwarm::http
