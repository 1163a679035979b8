#include "core/remote/postgres_link.hpp"

#include <fcntl.h>
#include <libpq-fe.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <new>

#include "core/remote/fork_gate.hpp"

namespace stillwarm {

namespace {

// Errors with which a server says that it is no use to go on with this connection, or at all.
bool means_gone(std::string_view state) {
  constexpr std::array<std::string_view, 5> kGone = {"57P01", "57P02", "57P03", "53300", "57P05"};
  for (const auto s : kGone) {
    if (s == state) return true;
  }
  return state.starts_with("08");
}

// The server's own deadline, or a lock that it did not get in time: as if no answer had come, on a good connection.
bool means_late(std::string_view state) { return state == "57014" || state == "55P03"; }

// What was prepared is of another session, or of a table that has changed: a new connection knows better.
bool means_outdated(std::string_view state, std::string_view text) {
  return state == "26000" || (state == "0A000" && text.find("cached plan") != std::string_view::npos);
}

TierFault fault_of(std::string_view state, std::string_view text, bool open) {
  if (!open || means_gone(state) || means_outdated(state, text)) return TierFault::kUnavailable;
  return means_late(state) ? TierFault::kTimeout : TierFault::kRejected;
}

std::string first_line(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  return std::string(text.substr(0, text.find('\n')));
}

std::string_view field_of(const PGresult* rows, int field) {
  const char* text = PQresultErrorField(rows, field);
  return text != nullptr ? text : "";
}

// What libpq has to say of a connection that is lost, or was never there.
TierFailure lost(const PGconn* link) {
  std::string text = first_line(PQerrorMessage(link));
  if (text.empty()) text = "the connection was lost";
  return TierFailure({TierFault::kUnavailable, "", std::move(text)});
}

// Throws what the server answered, if that is an error.
void check(PGconn* link, const PGresult* rows) {
  if (rows == nullptr) throw lost(link);
  const ExecStatusType status = PQresultStatus(rows);
  if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) return;
  const std::string_view state = field_of(rows, PG_DIAG_SQLSTATE);
  const std::string_view said = field_of(rows, PG_DIAG_MESSAGE_PRIMARY);
  if (state.empty()) {  // libpq's own words: the server did not get to answer
    if (PQstatus(link) != CONNECTION_OK) throw lost(link);
    throw TierFailure({TierFault::kUnavailable, "", first_line(PQresultErrorMessage(rows))});
  }
  const bool open = PQstatus(link) == CONNECTION_OK;
  throw TierFailure({fault_of(state, said, open), std::string(state),
                     std::string(field_of(rows, PG_DIAG_SEVERITY)) + ":  " + first_line(said)});
}

std::vector<const char*> pointers(const Parameters& parameters) {
  std::vector<const char*> p;
  p.reserve(parameters.size());
  for (const auto& parameter : parameters) p.push_back(parameter ? parameter->c_str() : nullptr);
  return p;
}

int count_of(const Parameters& parameters) { return static_cast<int>(parameters.size()); }

}  // namespace

void PostgresLink::Closer::operator()(pg_conn* link) const noexcept { PQfinish(link); }
void Rows::Closer::operator()(pg_result* rows) const noexcept { PQclear(rows); }

std::size_t Rows::size() const noexcept { return static_cast<std::size_t>(PQntuples(rows_.get())); }
std::size_t Rows::columns() const noexcept { return static_cast<std::size_t>(PQnfields(rows_.get())); }

// A reply that lacks what was asked for is no reply.
void Rows::expect(std::size_t row, std::size_t column) const {
  if (row < size() && column < columns()) return;
  throw TierFailure({TierFault::kUnavailable, "", "the server's answer is not what was asked for"});
}

bool Rows::null(std::size_t row, std::size_t column) const {
  expect(row, column);
  return PQgetisnull(rows_.get(), static_cast<int>(row), static_cast<int>(column)) != 0;
}

std::string_view Rows::at(std::size_t row, std::size_t column) const {
  expect(row, column);
  const int r = static_cast<int>(row), c = static_cast<int>(column);
  return {PQgetvalue(rows_.get(), r, c), static_cast<std::size_t>(PQgetlength(rows_.get(), r, c))};
}

std::optional<std::string> Rows::text(std::size_t row, std::size_t column) const {
  if (null(row, column)) return std::nullopt;
  return std::string(at(row, column));
}

PostgresLink::PostgresLink(const std::string& connection_string, bool prepares) : prepares_(prepares) {
  {
    const WithinLibrary now;
    link_.reset(PQconnectdb(connection_string.c_str()));
  }
  if (link_ == nullptr) throw std::bad_alloc();
  if (!usable()) throw lost(link_.get());
  PQsetNoticeProcessor(
      link_.get(), [](void*, const char*) {}, nullptr);  // libpq would print them
  duplicate_ = ::fcntl(PQsocket(link_.get()), F_DUPFD_CLOEXEC, 0);
  if (duplicate_ < 0) {  // nobody could cut it
    throw TierFailure({TierFault::kUnavailable, "", "the process has no more file descriptors"});
  }
}

PostgresLink::~PostgresLink() {
  if (duplicate_ >= 0) ::close(duplicate_);
}

Rows PostgresLink::run(const Statement& statement, const Parameters& parameters) {
  if (!prepares_) return run(statement.text, parameters);
  if (!prepared_.contains(statement.name)) {
    const Rows ready(PQprepare(link_.get(), statement.name.c_str(), statement.text.c_str(), 0, nullptr));
    check(link_.get(), ready.rows_.get());
    prepared_.insert(statement.name);
  }
  const auto values = pointers(parameters);
  Rows rows(
      PQexecPrepared(link_.get(), statement.name.c_str(), count_of(parameters), values.data(), nullptr, nullptr, 0));
  check(link_.get(), rows.rows_.get());
  return rows;
}

Rows PostgresLink::run(const std::string& text, const Parameters& parameters) {
  const auto values = pointers(parameters);
  Rows rows(parameters.empty() ? PQexec(link_.get(), text.c_str())
                               : PQexecParams(link_.get(), text.c_str(), count_of(parameters), nullptr, values.data(),
                                              nullptr, nullptr, 0));
  check(link_.get(), rows.rows_.get());
  return rows;
}

bool PostgresLink::usable() const noexcept { return PQstatus(link_.get()) == CONNECTION_OK; }

int PostgresLink::server_version() const noexcept { return PQserverVersion(link_.get()); }

int PostgresLink::notifications(const std::string& channel) {
  if (!listens_) {
    run("LISTEN " + quoted_identifier(channel));
    listens_ = true;
  }
  if (PQconsumeInput(link_.get()) == 0 || !usable()) throw lost(link_.get());
  int count = 0;
  while (PGnotify* one = PQnotifies(link_.get())) {
    ++count;
    PQfreemem(one);
  }
  return count;
}

int PostgresLink::descriptor() const noexcept { return PQsocket(link_.get()); }

void PostgresLink::cut() noexcept {
  if (duplicate_ >= 0) ::shutdown(duplicate_, SHUT_RDWR);
}

void PostgresLink::forget() noexcept {
  if (duplicate_ >= 0) ::close(duplicate_);
  duplicate_ = -1;
  const int own = PQsocket(link_.get());
  if (own >= 0) ::close(own);
  static_cast<void>(link_.release());
}

std::string check_connection_string(const std::string& text) {
  char* problem = nullptr;
  PQconninfoOption* const options = PQconninfoParse(text.c_str(), &problem);
  std::string said;
  if (options == nullptr) said = problem != nullptr ? first_line(problem) : "no memory";
  PQconninfoFree(options);
  PQfreemem(problem);
  return said;
}

std::string array_of(std::span<const std::optional<std::string>> items) {
  std::string text = "{";
  for (const auto& item : items) {
    if (text.size() > 1) text += ',';
    if (!item) {
      text += "NULL";
      continue;
    }
    text += '"';
    for (const char c : *item) {
      if (c == '"' || c == '\\') text += '\\';
      text += c;
    }
    text += '"';
  }
  return text += '}';
}

std::string array_of(std::span<const std::string> items) {
  std::vector<std::optional<std::string>> some(items.begin(), items.end());
  return array_of(some);
}

std::string hex_of(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.resize(2 + bytes.size() * 2);
  hex[0] = '\\';
  hex[1] = 'x';
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    hex[2 + 2 * i] = kDigits[byte >> 4];
    hex[3 + 2 * i] = kDigits[byte & 15];
  }
  return hex;
}

std::string bytes_of(std::string_view hex) {
  std::string bytes;
  if (!hex.starts_with("\\x")) return bytes;
  static constexpr auto kDigit = [] {
    std::array<unsigned char, 256> digit{};
    for (int c = '0'; c <= '9'; ++c) digit[static_cast<std::size_t>(c)] = static_cast<unsigned char>(c - '0');
    for (int c = 'a'; c <= 'f'; ++c) digit[static_cast<std::size_t>(c)] = static_cast<unsigned char>(c - 'a' + 10);
    for (int c = 'A'; c <= 'F'; ++c) digit[static_cast<std::size_t>(c)] = static_cast<unsigned char>(c - 'A' + 10);
    return digit;
  }();
  const auto digit = [](char c) { return kDigit[static_cast<unsigned char>(c)]; };
  bytes.resize((hex.size() - 2) / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<char>(digit(hex[2 + 2 * i]) << 4 | digit(hex[3 + 2 * i]));
  }
  return bytes;
}

}  // namespace stillwarm
