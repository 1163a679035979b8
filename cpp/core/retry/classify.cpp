// The tables of transient failures. Thread rule, order of the rules and what this refuses to know: see the header.
//
// Why a state or class counts as transient: the same call may succeed a moment later without anybody changing the
// program, its data or its rights. Authentication, certificates, syntax, constraints and missing objects never do.
#include "core/retry/classify.hpp"

#include <netdb.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <tuple>

namespace stillwarm {
namespace {

enum class Rule : std::uint8_t { kFatal, kNotFound, kTransient, kByErrno, kByStatus };

struct ClassRule {
  std::string_view package;
  std::string_view name;
  Rule rule;

  constexpr auto key() const noexcept { return std::tie(package, name); }
};

// Sorted. A base class that is fatal keeps the walk along the MRO from reaching a transient one further up: requests'
// RequestException is an OSError, and asyncpg's errors about wrong use would else pass for lost connections.
// The OperationalError of psycopg and psycopg2 gets here only without a SQLSTATE, which means that no server answered.
// clang-format off
constexpr auto kClassRules = std::to_array<ClassRule>({
    {"aiohttp", "ClientConnectionError", Rule::kTransient},
    {"aiohttp", "ClientError", Rule::kFatal},
    {"aiohttp", "ClientPayloadError", Rule::kTransient},
    {"aiohttp", "ClientResponseError", Rule::kByStatus},
    {"aiohttp", "ClientSSLError", Rule::kFatal},
    {"aiohttp", "ContentTypeError", Rule::kFatal},
    {"aiohttp", "ServerFingerprintMismatch", Rule::kFatal},
    {"aiohttp", "TooManyRedirects", Rule::kFatal},
    {"asyncio", "IncompleteReadError", Rule::kTransient},
    {"asyncio", "TimeoutError", Rule::kTransient},
    {"asyncpg", "InterfaceError", Rule::kFatal},
    {"asyncpg", "PostgresConnectionError", Rule::kTransient},
    {"builtins", "BlockingIOError", Rule::kTransient},
    {"builtins", "ChildProcessError", Rule::kFatal},
    {"builtins", "ConnectionError", Rule::kTransient},
    {"builtins", "FileExistsError", Rule::kFatal},
    {"builtins", "FileNotFoundError", Rule::kFatal},
    {"builtins", "InterruptedError", Rule::kTransient},
    {"builtins", "IsADirectoryError", Rule::kFatal},
    {"builtins", "NotADirectoryError", Rule::kFatal},
    {"builtins", "OSError", Rule::kByErrno},
    {"builtins", "PermissionError", Rule::kFatal},
    {"builtins", "ProcessLookupError", Rule::kFatal},
    {"builtins", "TimeoutError", Rule::kTransient},
    {"concurrent", "BrokenExecutor", Rule::kFatal},
    {"concurrent", "TimeoutError", Rule::kTransient},
    {"http", "BadStatusLine", Rule::kTransient},
    {"http", "HTTPException", Rule::kFatal},
    {"http", "IncompleteRead", Rule::kTransient},
    {"httpx", "DecodingError", Rule::kFatal},
    {"httpx", "HTTPError", Rule::kFatal},
    {"httpx", "HTTPStatusError", Rule::kByStatus},
    {"httpx", "LocalProtocolError", Rule::kFatal},
    {"httpx", "NetworkError", Rule::kTransient},
    {"httpx", "ProxyError", Rule::kTransient},
    {"httpx", "RemoteProtocolError", Rule::kTransient},
    {"httpx", "TimeoutException", Rule::kTransient},
    {"psycopg", "Error", Rule::kFatal},
    {"psycopg", "OperationalError", Rule::kTransient},
    {"psycopg", "PipelineAborted", Rule::kFatal},
    {"psycopg2", "Error", Rule::kFatal},
    {"psycopg2", "OperationalError", Rule::kTransient},
    {"psycopg_pool", "PoolClosed", Rule::kFatal},
    {"psycopg_pool", "PoolTimeout", Rule::kTransient},
    {"psycopg_pool", "TooManyRequests", Rule::kTransient},
    {"redis", "AuthenticationError", Rule::kFatal},
    {"redis", "AuthorizationError", Rule::kFatal},
    {"redis", "BusyLoadingError", Rule::kTransient},
    {"redis", "ClusterDownError", Rule::kTransient},
    {"redis", "ClusterError", Rule::kTransient},
    {"redis", "ConnectionError", Rule::kTransient},
    {"redis", "OutOfMemoryError", Rule::kTransient},
    {"redis", "ReadOnlyError", Rule::kTransient},
    {"redis", "RedisError", Rule::kFatal},
    {"redis", "SlotNotCoveredError", Rule::kTransient},
    {"redis", "TimeoutError", Rule::kTransient},
    {"redis", "TryAgainError", Rule::kTransient},
    {"redis", "WatchError", Rule::kTransient},
    {"requests", "ChunkedEncodingError", Rule::kTransient},
    {"requests", "ConnectionError", Rule::kTransient},
    {"requests", "HTTPError", Rule::kByStatus},
    {"requests", "RequestException", Rule::kFatal},
    {"requests", "RetryError", Rule::kTransient},
    {"requests", "SSLError", Rule::kFatal},
    {"requests", "Timeout", Rule::kTransient},
    {"socket", "gaierror", Rule::kByErrno},
    {"sqlalchemy", "DisconnectionError", Rule::kTransient},
    {"sqlalchemy", "SQLAlchemyError", Rule::kFatal},
    {"sqlalchemy", "TimeoutError", Rule::kTransient},
    {"ssl", "SSLEOFError", Rule::kTransient},
    {"ssl", "SSLError", Rule::kFatal},
    {"ssl", "SSLZeroReturnError", Rule::kTransient},
    {"stillwarm", "AttemptTimeout", Rule::kTransient},
    {"stillwarm", "CircuitOpen", Rule::kTransient},
    {"stillwarm", "LoadTimeout", Rule::kTransient},
    {"stillwarm", "NotFound", Rule::kNotFound},
    {"stillwarm", "StillwarmError", Rule::kFatal},
    {"stillwarm", "TierTimeout", Rule::kTransient},
    {"stillwarm", "TierUnavailable", Rule::kTransient},
    {"urllib", "HTTPError", Rule::kByStatus},
    {"urllib", "URLError", Rule::kFatal},
    {"urllib3", "ClosedPoolError", Rule::kFatal},
    {"urllib3", "EmptyPoolError", Rule::kTransient},
    {"urllib3", "HTTPError", Rule::kFatal},
    {"urllib3", "IncompleteRead", Rule::kTransient},
    {"urllib3", "InvalidChunkLength", Rule::kTransient},
    {"urllib3", "LocationValueError", Rule::kFatal},
    {"urllib3", "MaxRetryError", Rule::kTransient},
    {"urllib3", "NewConnectionError", Rule::kTransient},
    {"urllib3", "ProtocolError", Rule::kTransient},
    {"urllib3", "ProxyError", Rule::kTransient},
    {"urllib3", "ResponseNotChunked", Rule::kFatal},
    {"urllib3", "SSLError", Rule::kFatal},
    {"urllib3", "TimeoutError", Rule::kTransient},
});
// clang-format on
static_assert(std::ranges::is_sorted(kClassRules, {}, [](const ClassRule& r) { return r.key(); }));

// SQLSTATE of PostgreSQL (appendix A of its manual), sorted.
constexpr auto kTransientStates = std::to_array<std::string_view>({
    "25006",  // read-only transaction: this server became a standby
    "25P03",  // idle-in-transaction timeout: the connection is gone
    "25P04",  // transaction timeout
    "40000",  // rolled back
    "40001",  // serialization failure
    "40P01",  // deadlock
    "53000",  // insufficient resources
    "53100",  // disk full
    "53200",  // out of memory
    "53300",  // too many connections
    "55P03",  // lock not available
    "57000",  // operator intervention
    "57014",  // query cancelled, as by statement_timeout
    "57P01",  // shutdown by the administrator
    "57P02",  // shutdown after a crash
    "57P03",  // cannot connect now: starting, stopping, recovering
    "57P05",  // idle session timeout
    "58000",  // system error
    "58030",  // I/O error
    "72000",  // snapshot too old
    "HV00N",  // a foreign server cannot be reached
});
static_assert(std::ranges::is_sorted(kTransientStates));

// Class 08 (connection exceptions) is transient as a whole, because pgbouncer reports most of its own troubles as
// 08P01. But an unknown outcome of COMMIT is no licence to repeat: 08007 here, 40003 by not being in the table above.
constexpr std::string_view kConnectionClass = "08";
constexpr std::string_view kOutcomeUnknown = "08007";

constexpr auto kTransientStatuses = std::to_array<int>({408, 425, 429, 500, 502, 503, 504});

constexpr auto kTransientErrnos = std::to_array<int>({
    EAGAIN,        EINTR,        EBUSY,      ENFILE,       EMFILE,    EPIPE,     ENOBUFS,   ENETDOWN,     ENETUNREACH,
    ENETRESET,     ECONNABORTED, ECONNRESET, ECONNREFUSED, ESHUTDOWN, ETIMEDOUT, EHOSTDOWN, EHOSTUNREACH,
    EADDRNOTAVAIL,  // no free local port
    ENOTCONN,      ENONET,
    EAI_AGAIN,  // negative, as getaddrinfo gives it: no overlap with errno
    EAI_SYSTEM,
});

template <typename Table, typename Value>
constexpr bool contains(const Table& table, const Value& value) noexcept {
  return std::ranges::find(table, value) != table.end();
}

const ClassRule* find_rule(std::string_view qualified) noexcept {
  const auto first = qualified.find('.');
  if (first == std::string_view::npos) return nullptr;
  const std::string_view package = qualified.substr(0, first);
  const std::string_view name = qualified.substr(qualified.rfind('.') + 1);
  const auto key = std::tie(package, name);
  const auto found = std::ranges::lower_bound(kClassRules, key, {}, [](const ClassRule& r) { return r.key(); });
  return found != kClassRules.end() && found->key() == key ? found : nullptr;
}

ErrorKind transient_if(bool yes) noexcept { return yes ? ErrorKind::kTransient : ErrorKind::kFatal; }

ErrorKind by_status(int status) noexcept { return transient_if(contains(kTransientStatuses, status)); }

ErrorKind apply(Rule rule, const ErrorFacts& facts) noexcept {
  switch (rule) {
    case Rule::kTransient:
      return ErrorKind::kTransient;
    case Rule::kByErrno:
      return transient_if(facts.error_number && contains(kTransientErrnos, *facts.error_number));
    case Rule::kByStatus:
      return facts.http_status ? by_status(*facts.http_status) : ErrorKind::kFatal;
    case Rule::kNotFound:
      return ErrorKind::kNotFound;
    case Rule::kFatal:
      break;
  }
  return ErrorKind::kFatal;
}

}  // namespace

ErrorKind classify_sqlstate(std::string_view state) noexcept {
  if (state == kOutcomeUnknown) return ErrorKind::kFatal;
  return transient_if(state.starts_with(kConnectionClass) || contains(kTransientStates, state));
}

ErrorKind classify(const ErrorFacts& facts) noexcept {
  const ClassRule* decisive = nullptr;
  for (const std::string_view name : facts.mro) {
    const ClassRule* rule = find_rule(name);
    if (rule == nullptr) continue;
    if (rule->rule == Rule::kNotFound) return ErrorKind::kNotFound;
    if (decisive == nullptr) decisive = rule;
  }
  if (facts.connection_lost) return ErrorKind::kTransient;
  if (facts.sqlstate) return classify_sqlstate(*facts.sqlstate);
  if (decisive != nullptr) return apply(decisive->rule, facts);
  if (facts.http_status) return by_status(*facts.http_status);
  return ErrorKind::kFatal;
}

}  // namespace stillwarm
