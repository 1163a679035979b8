// Classification by facts: each library's classes as their real MRO, SQLSTATE, errno, HTTP status, and their order.
#include "core/retry/classify.hpp"

#include <gtest/gtest.h>
#include <netdb.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <vector>

namespace stillwarm {
namespace {

using Mro = std::vector<std::string_view>;

constexpr auto kFatal = ErrorKind::kFatal;
constexpr auto kTransient = ErrorKind::kTransient;

ErrorKind by_class(Mro mro) {
  ErrorFacts facts;
  mro.insert(mro.end(), {"builtins.Exception", "builtins.BaseException", "builtins.object"});
  facts.mro = mro;
  return classify(facts);
}

TEST(Classify, EachLibrarysClasses) {
  const std::vector<std::pair<Mro, ErrorKind>> cases{
      // the standard library
      {{"builtins.ConnectionResetError", "builtins.ConnectionError", "builtins.OSError"}, kTransient},
      {{"builtins.TimeoutError", "builtins.OSError"}, kTransient},
      {{"builtins.FileNotFoundError", "builtins.OSError"}, kFatal},
      {{"builtins.PermissionError", "builtins.OSError"}, kFatal},
      {{"builtins.OSError"}, kFatal},
      {{"builtins.KeyError", "builtins.LookupError"}, kFatal},
      {{"builtins.LookupError"}, kFatal},
      {{"builtins.ValueError"}, kFatal},
      {{"asyncio.exceptions.TimeoutError"}, kTransient},
      {{"concurrent.futures._base.TimeoutError", "concurrent.futures._base.Error"}, kTransient},
      {{"http.client.RemoteDisconnected", "builtins.ConnectionResetError", "builtins.ConnectionError",
        "builtins.OSError", "http.client.BadStatusLine", "http.client.HTTPException"},
       kTransient},
      {{"ssl.SSLCertVerificationError", "ssl.SSLError", "builtins.OSError", "builtins.ValueError"}, kFatal},
      {{"ssl.SSLEOFError", "ssl.SSLError", "builtins.OSError"}, kTransient},
      // databases, without SQLSTATE
      {{"psycopg.OperationalError", "psycopg.DatabaseError", "psycopg.Error"}, kTransient},
      {{"psycopg.InterfaceError", "psycopg.Error"}, kFatal},
      {{"psycopg.ProgrammingError", "psycopg.DatabaseError", "psycopg.Error"}, kFatal},
      {{"psycopg_pool.errors.PoolClosed", "psycopg.OperationalError", "psycopg.DatabaseError", "psycopg.Error"},
       kFatal},
      {{"psycopg2.OperationalError", "psycopg2.DatabaseError", "psycopg2.Error"}, kTransient},
      {{"psycopg2.errors.UniqueViolation", "psycopg2.IntegrityError", "psycopg2.DatabaseError", "psycopg2.Error"},
       kFatal},
      {{"asyncpg.exceptions._base.InterfaceError", "asyncpg.exceptions._base.InterfaceMessage"}, kFatal},
      {{"sqlalchemy.exc.TimeoutError", "sqlalchemy.exc.SQLAlchemyError"}, kTransient},
      {{"sqlalchemy.exc.NoResultFound", "sqlalchemy.exc.InvalidRequestError", "sqlalchemy.exc.SQLAlchemyError"},
       kFatal},
      // redis
      {{"redis.exceptions.ConnectionError", "redis.exceptions.RedisError"}, kTransient},
      {{"redis.exceptions.AuthenticationError", "redis.exceptions.ConnectionError", "redis.exceptions.RedisError"},
       kFatal},
      {{"redis.exceptions.MasterDownError", "redis.exceptions.ClusterDownError", "redis.exceptions.ClusterError",
        "redis.exceptions.ResponseError", "redis.exceptions.RedisError"},
       kTransient},
      {{"redis.exceptions.ReadOnlyError", "redis.exceptions.ResponseError", "redis.exceptions.RedisError"}, kTransient},
      {{"redis.exceptions.ResponseError", "redis.exceptions.RedisError"}, kFatal},
      {{"redis.exceptions.SlotNotCoveredError", "redis.exceptions.RedisClusterException"}, kTransient},
      // HTTP clients
      {{"requests.exceptions.ConnectTimeout", "requests.exceptions.ConnectionError", "requests.exceptions.Timeout",
        "requests.exceptions.RequestException", "builtins.OSError"},
       kTransient},
      {{"requests.exceptions.SSLError", "requests.exceptions.ConnectionError", "requests.exceptions.RequestException",
        "builtins.OSError"},
       kFatal},
      {{"requests.exceptions.TooManyRedirects", "requests.exceptions.RequestException", "builtins.OSError"}, kFatal},
      {{"httpx.ConnectError", "httpx.NetworkError", "httpx.TransportError", "httpx.RequestError", "httpx.HTTPError"},
       kTransient},
      {{"httpx.PoolTimeout", "httpx.TimeoutException", "httpx.TransportError", "httpx.RequestError", "httpx.HTTPError"},
       kTransient},
      {{"httpx.LocalProtocolError", "httpx.ProtocolError", "httpx.TransportError", "httpx.RequestError",
        "httpx.HTTPError"},
       kFatal},
      {{"httpx.UnsupportedProtocol", "httpx.TransportError", "httpx.RequestError", "httpx.HTTPError"}, kFatal},
      {{"urllib3.exceptions.NewConnectionError", "urllib3.exceptions.ConnectTimeoutError",
        "urllib3.exceptions.TimeoutError", "urllib3.exceptions.HTTPError"},
       kTransient},
      {{"urllib3.exceptions.LocationParseError", "urllib3.exceptions.LocationValueError", "builtins.ValueError",
        "urllib3.exceptions.HTTPError"},
       kFatal},
      {{"aiohttp.client_exceptions.ServerDisconnectedError", "aiohttp.client_exceptions.ServerConnectionError",
        "aiohttp.client_exceptions.ClientConnectionError", "aiohttp.client_exceptions.ClientError"},
       kTransient},
      {{"aiohttp.client_exceptions.ClientConnectorCertificateError", "aiohttp.client_exceptions.ClientSSLError",
        "aiohttp.client_exceptions.ClientConnectorError", "aiohttp.client_exceptions.ClientOSError",
        "aiohttp.client_exceptions.ClientConnectionError", "aiohttp.client_exceptions.ClientError"},
       kFatal},
      {{"aiohttp.client_exceptions.InvalidURL", "aiohttp.client_exceptions.ClientError", "builtins.ValueError"},
       kFatal},
      // our own
      {{"stillwarm.errors.NotFound", "stillwarm.errors.StillwarmError", "builtins.LookupError"}, ErrorKind::kNotFound},
      {{"shop.NoSuchProduct", "stillwarm.errors.NotFound", "stillwarm.errors.StillwarmError"}, ErrorKind::kNotFound},
      {{"stillwarm.errors.CircuitOpen", "stillwarm.errors.StillwarmError"}, kTransient},
      {{"stillwarm.errors.LoadTimeout", "stillwarm.errors.StillwarmError", "builtins.TimeoutError"}, kTransient},
      {{"stillwarm.errors.TierRejected", "stillwarm.errors.TierError", "stillwarm.errors.StillwarmError"}, kFatal},
      {{"stillwarm.errors.RecursiveLoadError", "stillwarm.errors.StillwarmError"}, kFatal},
      // nobody's
      {{"shop.Lost", "requests.exceptions.ConnectionError", "requests.exceptions.RequestException", "builtins.OSError"},
       kTransient},
      {{"shop.ConnectionError"}, kFatal},
      {{"requests_mock.exceptions.NoMockAddress"}, kFatal},
      {{"ConnectionError"}, kFatal},
      {{""}, kFatal},
      {{}, kFatal},
  };
  for (const auto& [mro, kind] : cases) EXPECT_EQ(by_class(mro), kind) << (mro.empty() ? "" : mro.front());
}

TEST(Classify, AClassMayMoveBetweenModulesOfItsPackage) {
  EXPECT_EQ(by_class({"httpx._exceptions.ConnectError", "httpx._exceptions.NetworkError"}), kTransient);
}

TEST(Classify, SqlStates) {
  for (const char* state : {"40001", "40P01", "08000", "08001", "08006", "08P01", "53300", "53100", "55P03", "57014",
                            "57P01", "57P02", "57P03", "25006", "58030"}) {
    EXPECT_EQ(classify_sqlstate(state), kTransient) << state;
  }
  // Last line: commit outcome unknown, never repeated blindly.
  for (const char* state : {"23505", "42P01", "42601", "22012", "28P01", "28000", "3D000", "53400", "57P04", "40002",
                            "XX000", "P0001", "00000", "", "4000", "HY000", "08007", "40003"}) {
    EXPECT_EQ(classify_sqlstate(state), kFatal) << state;
  }
}

TEST(Classify, ASqlStateBeatsTheClass) {
  const Mro operational{"psycopg.OperationalError", "psycopg.DatabaseError", "psycopg.Error"};
  ErrorFacts facts;
  facts.mro = operational;
  facts.sqlstate = "57P04";
  EXPECT_EQ(classify(facts), kFatal);
  const Mro unknown{"mysql.connector.errors.DatabaseError"};
  facts.mro = unknown;
  facts.sqlstate = "40001";
  EXPECT_EQ(classify(facts), kTransient);
}

TEST(Classify, ALostConnectionBeatsTheSqlState) {
  ErrorFacts facts;
  facts.sqlstate = "XX000";
  facts.connection_lost = true;
  EXPECT_EQ(classify(facts), kTransient);
}

TEST(Classify, NotFoundBeatsEverything) {
  const Mro both{"shop.Gone", "builtins.ConnectionError", "builtins.OSError", "stillwarm.errors.NotFound"};
  ErrorFacts facts;
  facts.mro = both;
  facts.connection_lost = true;
  EXPECT_EQ(classify(facts), ErrorKind::kNotFound);
}

TEST(Classify, HttpStatuses) {
  const Mro known{"requests.exceptions.HTTPError", "requests.exceptions.RequestException", "builtins.OSError"};
  const Mro unknown{"shop.ApiError", "builtins.Exception"};
  for (const Mro& mro : {known, unknown}) {
    ErrorFacts facts;
    facts.mro = mro;
    EXPECT_EQ(classify(facts), kFatal);
    for (int status = 100; status < 600; ++status) {
      facts.http_status = status;
      const bool transient =
          status == 408 || status == 425 || status == 429 || status == 500 || (status >= 502 && status <= 504);
      EXPECT_EQ(classify(facts), transient ? kTransient : kFatal) << mro.front() << ' ' << status;
    }
  }
}

TEST(Classify, AStatusDoesNotOverruleAClassThatIsKnown) {
  const Mro redirects{"requests.exceptions.TooManyRedirects", "requests.exceptions.RequestException"};
  ErrorFacts facts;
  facts.mro = redirects;
  facts.http_status = 503;
  EXPECT_EQ(classify(facts), kFatal);
}

TEST(Classify, ErrnoOfAnOsError) {
  const Mro os{"builtins.OSError", "builtins.Exception"};
  ErrorFacts facts;
  facts.mro = os;
  for (const int number : {EHOSTUNREACH, ENETUNREACH, ENETDOWN, EMFILE, ENFILE, EAGAIN, EADDRNOTAVAIL, ETIMEDOUT}) {
    facts.error_number = number;
    EXPECT_EQ(classify(facts), kTransient) << number;
  }
  for (const int number : {0, ENOENT, EACCES, EPERM, ENOSPC, EINVAL, EROFS, EIO, ENAMETOOLONG, 99'999, -99'999}) {
    facts.error_number = number;
    EXPECT_EQ(classify(facts), kFatal) << number;
  }
  const Mro dns{"socket.gaierror", "builtins.OSError"};
  facts.mro = dns;
  facts.error_number = EAI_AGAIN;
  EXPECT_EQ(classify(facts), kTransient);
  facts.error_number = EAI_NONAME;
  EXPECT_EQ(classify(facts), kFatal);
}

TEST(Classify, AnErrnoOnAnotherClassMeansNothing) {
  const Mro other{"shop.Failure", "builtins.Exception"};
  ErrorFacts facts;
  facts.mro = other;
  facts.error_number = ECONNRESET;
  EXPECT_EQ(classify(facts), kFatal);
}

}  // namespace
}  // namespace stillwarm
