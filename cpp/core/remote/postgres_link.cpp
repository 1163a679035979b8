#include "core/remote/postgres_link.hpp"

#include <fcntl.h>
#include <libpq-fe.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <pqxx/pqxx>
#include <unordered_set>

namespace stillwarm {

struct Rows::Result {
  pqxx::result rows;
};

namespace {

class Counter : public pqxx::notification_receiver {
 public:
  Counter(pqxx::connection_base& c, const std::string& channel) : pqxx::notification_receiver(c, channel) {}
  void operator()(const std::string& /*payload*/, int /*backend*/) override { ++count; }
  int count = 0;
};

}  // namespace

struct PostgresLink::Connection {
  explicit Connection(const std::string& text) : link(text) {}
  pqxx::connection link;
  std::unordered_set<std::string> prepared;
  std::unique_ptr<Counter> counter;
};

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
  // 57P01 and 53300 often come without their SQLSTATE: then the connection's state tells.
  if (!open || means_gone(state) || means_outdated(state, text)) return TierFault::kUnavailable;
  return means_late(state) ? TierFault::kTimeout : TierFault::kRejected;
}

std::string first_line(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  return std::string(text.substr(0, text.find('\n')));
}

// What a server says in the verbose form: severity, state, text. libpqxx 6 loses the state of some errors, of 42501 and
// of those that end a connection among them.
struct Said {
  std::string state;
  std::string text;
};

Said said(const char* what) {
  Said s{"", first_line(what)};
  const auto is_code = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'); };
  const auto at = s.text.find(":  ");
  if (at == std::string::npos || s.text.size() < at + 10 || s.text.compare(at + 8, 2, ": ") != 0) return s;
  s.state = s.text.substr(at + 3, 5);
  if (!std::all_of(s.state.begin(), s.state.end(), is_code)) return {"", s.text};
  s.text.erase(at + 3, 7);
  return s;
}

TierError error_of(TierFault fault, const char* what) {
  Said s = said(what);
  return {fault, std::move(s.state), std::move(s.text)};
}

// Runs `f`, and turns what libpqxx throws into a PostgresFailure.
template <class F>
auto translated(const pqxx::connection_base* link, F&& f) {
  try {
    return f();
  } catch (const pqxx::broken_connection& e) {
    throw PostgresFailure(error_of(TierFault::kUnavailable, e.what()));
  } catch (const pqxx::failure& e) {  // what the server answered, and what libpqxx makes of a connection that is lost
    TierError error = error_of(TierFault::kUnavailable, e.what());
    const auto* sql = dynamic_cast<const pqxx::sql_error*>(&e);
    if (error.state.empty() && sql != nullptr) error.state = sql->sqlstate();
    // In 6.x these two are no sql_error.
    if (error.state.empty() && dynamic_cast<const pqxx::deadlock_detected*>(&e) != nullptr) error.state = "40P01";
    if (error.state.empty() && dynamic_cast<const pqxx::serialization_failure*>(&e) != nullptr) error.state = "40001";
    const bool open = link == nullptr || link->is_open();
    if (sql != nullptr || !error.state.empty()) error.fault = fault_of(error.state, error.message, open);
    if (!open && error.message.starts_with("Could not")) error.message = "the connection was lost";
    throw PostgresFailure(std::move(error));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {  // libpqxx's own: wrong use, conversion; the connection is not trusted after it
    throw PostgresFailure({TierFault::kUnavailable, "", first_line(e.what())});
  }
}

std::vector<const char*> pointers(const Parameters& parameters) {
  std::vector<const char*> p;
  p.reserve(parameters.size());
  for (const auto& parameter : parameters) p.push_back(parameter ? parameter->c_str() : nullptr);
  return p;
}

}  // namespace

std::size_t Rows::size() const noexcept { return result_->rows.size(); }
std::size_t Rows::columns() const noexcept { return result_->rows.columns(); }
std::size_t Rows::affected() const { return result_->rows.affected_rows(); }

// A reply that lacks what was asked for is no reply.
void Rows::expect(std::size_t row, std::size_t column) const {
  if (row < size() && column < columns()) return;
  throw PostgresFailure({TierFault::kUnavailable, "", "the server's answer is not what was asked for"});
}

bool Rows::null(std::size_t row, std::size_t column) const {
  expect(row, column);
  return result_->rows[static_cast<pqxx::result_size_type>(row)][static_cast<pqxx::row_size_type>(column)].is_null();
}

std::string_view Rows::at(std::size_t row, std::size_t column) const {
  expect(row, column);
  const auto field = result_->rows[static_cast<pqxx::result_size_type>(row)][static_cast<pqxx::row_size_type>(column)];
  return {field.c_str(), field.size()};
}

std::optional<std::string> Rows::text(std::size_t row, std::size_t column) const {
  if (null(row, column)) return std::nullopt;
  return std::string(at(row, column));
}

PostgresLink::PostgresLink(const std::string& connection_string, bool prepares) {
  connection_ = translated(nullptr, [&] { return std::make_unique<Connection>(connection_string); });
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  connection_->link.inhibit_reactivation(true);  // 6.x would connect anew by itself; here a lost connection is noticed
#pragma GCC diagnostic pop
  connection_->link.set_verbosity(pqxx::connection_base::verbose);
  if (!prepares) connection_->prepared.insert("");
  duplicate_ = ::fcntl(connection_->link.sock(), F_DUPFD_CLOEXEC, 0);
  if (duplicate_ < 0) {  // nobody could cut it
    throw PostgresFailure({TierFault::kUnavailable, "", "the process has no more file descriptors"});
  }
}

PostgresLink::~PostgresLink() {
  if (duplicate_ >= 0) ::close(duplicate_);
}

Rows PostgresLink::run(const Statement& statement, const Parameters& parameters) {
  auto& prepared = connection_->prepared;
  if (prepared.contains("")) return run(statement.text, parameters);
  return translated(&connection_->link, [&] {
    if (!prepared.contains(statement.name)) {
      connection_->link.prepare(statement.name, statement.text);
      prepared.insert(statement.name);
    }
    pqxx::nontransaction transaction(connection_->link);
    Rows rows;
    rows.result_ = std::make_shared<Rows::Result>(Rows::Result{
        transaction.exec_prepared(statement.name, pqxx::prepare::make_dynamic_params(pointers(parameters)))});
    return rows;
  });
}

Rows PostgresLink::run(const std::string& text, const Parameters& parameters) {
  return translated(&connection_->link, [&] {
    pqxx::nontransaction transaction(connection_->link);
    Rows rows;
    rows.result_ = std::make_shared<Rows::Result>(Rows::Result{
        parameters.empty() ? transaction.exec(text)
                           : transaction.exec_params(text, pqxx::prepare::make_dynamic_params(pointers(parameters)))});
    return rows;
  });
}

bool PostgresLink::usable() const noexcept { return connection_->link.is_open(); }

int PostgresLink::server_version() const noexcept { return connection_->link.server_version(); }

int PostgresLink::notifications(const std::string& channel) {
  return translated(&connection_->link, [&] {
    auto& counter = connection_->counter;
    if (counter == nullptr) counter = std::make_unique<Counter>(connection_->link, channel);  // sends LISTEN
    counter->count = 0;
    connection_->link.get_notifs();
    if (!connection_->link.is_open()) throw pqxx::broken_connection("the connection was closed by the server");
    return counter->count;
  });
}

int PostgresLink::descriptor() const noexcept { return connection_->link.sock(); }

void PostgresLink::cut() noexcept {
  if (duplicate_ >= 0) ::shutdown(duplicate_, SHUT_RDWR);
}

void PostgresLink::forget() noexcept {
  if (duplicate_ >= 0) ::close(duplicate_);
  duplicate_ = -1;
  const int own = connection_->link.sock();
  if (own >= 0) ::close(own);
  static_cast<void>(connection_.release());
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
