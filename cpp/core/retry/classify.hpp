// What kind of failure an exception is, judged by facts that were gathered from it: class names, SQLSTATE, errno, HTTP.
//
// Thread rule: pure function over constant tables, any thread.
// Refuses to know: exception objects and the libraries they come from (none is ever imported), what a wrapper wraps
// (whoever gathers the facts takes the inner error), and whether a repetition is safe.
//
// Rules, first that decides:
//   1. A class that stands for "no such thing" (stillwarm.errors.NotFound) -> NOT_FOUND.
//   2. The client library says that the connection is gone -> TRANSIENT.
//   3. A SQLSTATE -> by the table of states; what is not in it is FATAL.
//   4. The MRO, most derived class first -> the first class that has a rule: transient, fatal, by errno or by status.
//   5. An HTTP status on a class that nobody knows -> by the table of statuses.
//   6. FATAL. A LookupError, a ValueError, a class we do not know: an answer, not an outage.
//
// A class is known by its package and its last name ("requests" + "ConnectionError"), not by the module between them:
// libraries move classes between private modules and keep the public name.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace stillwarm {

enum class ErrorKind : std::uint8_t { kFatal, kNotFound, kTransient };

struct ErrorFacts {
  std::span<const std::string_view> mro;     // "module.qualname", most derived first
  std::optional<std::string_view> sqlstate;  // five characters
  std::optional<int> error_number;           // errno, or EAI_* of getaddrinfo
  std::optional<int> http_status;
  bool connection_lost = false;
};

ErrorKind classify(const ErrorFacts& facts) noexcept;

// The table of states alone.
ErrorKind classify_sqlstate(std::string_view state) noexcept;

}  // namespace stillwarm
