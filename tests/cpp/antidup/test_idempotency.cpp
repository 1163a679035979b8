// Idempotency: the verdict for every kind of record, keys as they come in a header, statements that drivers can pass.
#include "core/antidup/idempotency.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

namespace stillwarm {
namespace {

using enum IdempotencyVerdict;

// Claimed at 100 s, with a lease until 130 s, kept until 1,000 s.
IdempotencyRecord record(RecordState state = RecordState::kClaimed) {
  return {state, "print", 100 * kSecond, 130 * kSecond, 1'000 * kSecond};
}

IdempotencyVerdict at(Nanos seconds, const IdempotencyRecord& found, OnCrash on_crash = OnCrash::kUnknown,
                      std::string_view fingerprint = "print") {
  return judge(found, fingerprint, seconds * kSecond, on_crash).verdict;
}

TEST(Idempotency, RunsWithoutARecord) { EXPECT_EQ(judge(std::nullopt, "print", 0, OnCrash::kUnknown).verdict, kRun); }

TEST(Idempotency, RunningUntilTheLeaseEndsThenUnknown) {
  EXPECT_EQ(at(129, record()), kRunning);
  EXPECT_EQ(at(130, record()), kUnknown);
  EXPECT_EQ(at(999, record()), kUnknown);
  EXPECT_EQ(at(1'000, record()), kRun);
}

TEST(Idempotency, RerunsAnEndedLeaseByChoiceOnly) {
  EXPECT_EQ(at(129, record(), OnCrash::kRerun), kRunning);
  EXPECT_EQ(at(130, record(), OnCrash::kRerun), kRun);
}

TEST(Idempotency, ReplaysUntilItExpires) {
  EXPECT_EQ(at(999, record(RecordState::kDone)), kReplay);
  EXPECT_EQ(at(1'000, record(RecordState::kDone)), kRun);
  EXPECT_EQ(at(999, record(RecordState::kUnkept)), kUnkept);
  EXPECT_EQ(at(999, record(RecordState::kUnkept), OnCrash::kRerun), kUnkept);
}

TEST(Idempotency, AnotherPayloadIsAMismatchInEveryState) {
  for (const RecordState state : {RecordState::kClaimed, RecordState::kDone, RecordState::kUnkept}) {
    for (const OnCrash on_crash : {OnCrash::kUnknown, OnCrash::kRerun}) {
      EXPECT_EQ(at(120, record(state), on_crash, "other"), kMismatch);
      EXPECT_EQ(at(500, record(state), on_crash, "other"), kMismatch);
      EXPECT_EQ(at(1'000, record(state), on_crash, "other"), kRun);
    }
  }
}

TEST(Idempotency, AnOwnerThatRunsLongerThanTheRecordIsNotOvertaken) {
  IdempotencyRecord found = record();
  found.expires_at = 110 * kSecond;
  EXPECT_EQ(at(120, found), kRunning);
  EXPECT_EQ(at(130, found), kRun);
}

TEST(Idempotency, RetryAfterIsAsLongAsItHasRun) {
  IdempotencyRecord found = record();
  found.lease_until = 900 * kSecond;
  const auto wait = [&](Nanos now) { return judge(found, "print", now * kSecond, OnCrash::kUnknown).retry_after; };
  EXPECT_EQ(wait(99), 1) << "a clock that went back";
  EXPECT_EQ(wait(100), 1);
  EXPECT_EQ(wait(107), 7);
  EXPECT_EQ(wait(800), 30);
}

TEST(Idempotency, ALostClaimNeverRuns) {
  for (const OnCrash on_crash : {OnCrash::kUnknown, OnCrash::kRerun}) {
    for (const RecordState state : {RecordState::kClaimed, RecordState::kDone, RecordState::kUnkept}) {
      for (const Nanos now : {0, 129, 130, 999, 1'000, 5'000}) {
        for (const char* print : {"print", "other"}) {
          EXPECT_NE(judge_lost(record(state), print, now * kSecond, on_crash).verdict, kRun);
        }
      }
    }
  }
  EXPECT_EQ(judge_lost(std::nullopt, "print", 0, OnCrash::kRerun).verdict, kRunning);
}

TEST(IdempotencyKey, QuotedAndBareAreOne) {
  for (const char* field : {"8e03978e-40d5", "\"8e03978e-40d5\"", "  \"8e03978e-40d5\" \t"}) {
    const ParsedKey parsed = parse_idempotency_key(field);
    EXPECT_EQ(parsed.error, nullptr) << field;
    EXPECT_EQ(parsed.key, "8e03978e-40d5");
  }
  EXPECT_EQ(parse_idempotency_key(R"("a \"b\" \\ c")").key, R"(a "b" \ c)");
}

TEST(IdempotencyKey, RefusesWhatIsNoString) {
  for (const std::string field : {"", "  ", "\"\"", "\"a", "\"a\"b", "\"a\\n\"", "a b", "a, b", "\"a\", \"b\"", "a;b",
                                  "\"\x01\"", "\xc3\xa9", "\"\xc3\xa9\"", "a\"b", "\"a\\"}) {
    const ParsedKey parsed = parse_idempotency_key(field);
    EXPECT_NE(parsed.error, nullptr) << field;
    EXPECT_EQ(parsed.key, "");
  }
  EXPECT_EQ(parse_idempotency_key(std::string(255, 'a')).error, nullptr);
  EXPECT_NE(parse_idempotency_key(std::string(256, 'a')).error, nullptr);
  EXPECT_NE(parse_idempotency_key('"' + std::string(256, 'a') + '"').error, nullptr);
}

TEST(IdempotencySql, HasNothingThatADriverTakesForItsOwn) {
  const IdempotencySql sql("\"warm\"");
  for (const std::string& text :
       {sql.claim, sql.lock, sql.finish, sql.renew, sql.release, sql.forget, sql.unknown, sql.purge}) {
    EXPECT_EQ(text.find_first_of("%:{}?"), std::string::npos) << text;
    EXPECT_NE(text.find("$1"), std::string::npos);
  }
  EXPECT_NE(sql.claim.find("\"warm\".idempotency"), std::string::npos);
  EXPECT_EQ(sql.unknown.find("body"), std::string::npos);
  EXPECT_EQ(sql.unknown.find("headers"), std::string::npos);
}

}  // namespace
}  // namespace stillwarm
