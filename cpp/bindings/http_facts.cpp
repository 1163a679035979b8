#include "bindings/http_facts.hpp"

#include <algorithm>
#include <array>

#include "core/http/fields.hpp"

namespace stillwarm::py {
namespace {

// The text of a str or bytes; empty for anything else. Latin-1 that is no ASCII comes as UTF-8: no grammar reads it.
std::string_view text_of(PyObject* o) noexcept {
  if (o == nullptr) return {};
  if (PyBytes_Check(o)) return {PyBytes_AS_STRING(o), static_cast<std::size_t>(PyBytes_GET_SIZE(o))};
  if (!PyUnicode_Check(o)) return {};
  if (PyUnicode_IS_COMPACT_ASCII(o)) {
    return {static_cast<const char*>(PyUnicode_DATA(o)), static_cast<std::size_t>(PyUnicode_GET_LENGTH(o))};
  }
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(o, &size);
  if (text == nullptr) {
    PyErr_Clear();  // a lone surrogate
    return {"\xff", 1};
  }
  return {text, static_cast<std::size_t>(size)};
}

bool is_plain(unsigned char c, bool in_path) noexcept {
  return c > 0x20 && c < 0x7f && c != '~' && !(in_path && (c == '%' || c == '?'));
}

void append_escaped(std::string& to, std::string_view text, bool decoded) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  const auto special = [decoded](char c) { return !is_plain(static_cast<unsigned char>(c), decoded); };
  const auto first = std::find_if(text.begin(), text.end(), special);
  to.append(text.begin(), first);
  for (const char c : text.substr(static_cast<std::size_t>(first - text.begin()))) {
    const auto byte = static_cast<unsigned char>(c);
    if (is_plain(byte, decoded)) {
      to.push_back(c);
    } else {
      to.push_back('%');
      to.push_back(kDigits[byte >> 4]);
      to.push_back(kDigits[byte & 15]);
    }
  }
}

// A part of the URI. A text that UTF-8 has no bytes for is told from others by the numbers of its characters.
void append_part(std::string& to, PyObject* o, bool decoded) {
  const std::string_view text = text_of(o);
  if (o == nullptr || !PyUnicode_Check(o) || text != "\xff") return append_escaped(to, text, decoded);
  to += "%u";
  for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(o); ++i) {
    to.append(std::to_string(PyUnicode_READ_CHAR(o, i))).push_back('.');
  }
}

// Lower case, without the port that the scheme implies (RFC 9110, 4.2.3).
void append_host(std::string& to, std::string_view host, std::string_view scheme) {
  const std::string_view port = scheme == "https" ? ":443" : ":80";
  if (host.ends_with(port)) host.remove_suffix(port.size());
  for (char c : host) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
    if (c == '/' || c == '?') {
      to += c == '/' ? "%2F" : "%3F";
    } else {
      append_escaped(to, {&c, 1}, true);
    }
  }
}

bool is_ignored(std::string_view name, const std::vector<std::string>& ignored) noexcept {
  for (const std::string& one : ignored) {
    if (one.ends_with('*') ? name.starts_with(std::string_view(one).substr(0, one.size() - 1)) : name == one)
      return true;
  }
  return false;
}

// Is there a cookie that the route does not ignore?
bool has_cookie(std::string_view cookies, const std::vector<std::string>& ignored) noexcept {
  while (!cookies.empty()) {
    const std::size_t end = cookies.find(';');
    std::string_view one = cookies.substr(0, end);
    cookies = end == std::string_view::npos ? std::string_view{} : cookies.substr(end + 1);
    while (!one.empty() && (one.front() == ' ' || one.front() == '\t')) one.remove_prefix(1);
    if (!one.empty() && !is_ignored(one.substr(0, one.find('=')), ignored)) return true;
  }
  return false;
}

// RFC 9110, 5.3: fields of one name are one list; and of cookies, RFC 9113, 8.2.3.
void append_field(std::string& to, std::string_view value, std::string_view separator = ", ") {
  if (!to.empty()) to += separator;
  to += value;
}

void set_field(OwnedRequest& request, std::string_view name, std::string_view value, const FrontOptions& options) {
  switch (name.size()) {
    case 5:
      if (name == "range") append_field(request.range, value);
      break;
    case 6:
      if (name == "cookie") request.cookie = request.cookie || has_cookie(value, options.ignored_cookies);
      if (name == "pragma") append_field(request.pragma, value);
      break;
    case 7:
      if (name == "upgrade") request.upgrade = true;
      break;
    case 8:
      if (name == "if-match") append_field(request.if_match, value);
      if (name == "if-range") append_field(request.if_range, value);
      break;
    case 13:
      if (name == "authorization") request.authorization = true;
      if (name == "cache-control") append_field(request.cache_control, value);
      if (name == "if-none-match") append_field(request.if_none_match, value);
      break;
    case 14:
      if (name == "content-length") request.body = request.body || value != "0";
      break;
    case 17:
      if (name == "if-modified-since") append_field(request.if_modified_since, value);
      if (name == "transfer-encoding") request.body = true;
      break;
    case 19:
      if (name == "if-unmodified-since") append_field(request.if_unmodified_since, value);
      break;
    default:
      break;
  }
}

// The names under which WSGI has what caching reads, made once.
struct Names {
  PyObject *method, *scheme, *host, *server, *port, *script, *path, *query, *content_length;
  struct Field {
    PyObject* key;
    std::string_view name;
  };
  std::array<Field, 12> fields;
  Names() {
    const auto made = [](const char* text) { return PyUnicode_InternFromString(text); };
    method = made("REQUEST_METHOD"), scheme = made("wsgi.url_scheme"), host = made("HTTP_HOST");
    server = made("SERVER_NAME"), port = made("SERVER_PORT"), script = made("SCRIPT_NAME"), path = made("PATH_INFO");
    query = made("QUERY_STRING"), content_length = made("CONTENT_LENGTH");
    fields = {{{made("HTTP_COOKIE"), "cookie"},
               {made("HTTP_AUTHORIZATION"), "authorization"},
               {made("HTTP_CACHE_CONTROL"), "cache-control"},
               {made("HTTP_IF_NONE_MATCH"), "if-none-match"},
               {made("HTTP_IF_MODIFIED_SINCE"), "if-modified-since"},
               {made("HTTP_RANGE"), "range"},
               {made("HTTP_IF_RANGE"), "if-range"},
               {made("HTTP_PRAGMA"), "pragma"},
               {made("HTTP_IF_MATCH"), "if-match"},
               {made("HTTP_IF_UNMODIFIED_SINCE"), "if-unmodified-since"},
               {made("HTTP_UPGRADE"), "upgrade"},
               {made("HTTP_TRANSFER_ENCODING"), "transfer-encoding"}}};
  }
};

const Names& names() {
  static const Names made;
  return made;
}

PyObject* item(PyObject* dict, PyObject* key) noexcept {
  PyObject* found = PyDict_GetItemWithError(dict, key);
  if (found == nullptr && PyErr_Occurred() != nullptr) PyErr_Clear();
  return found;
}

bool refuse(const char* what) {
  PyErr_SetString(PyExc_TypeError, what);
  return false;
}

// A line break in a value would end it: servers refuse those, and here they count as part of the value. Bytes that are
// no ASCII may be no UTF-8 either.
void append_line(std::string& to, std::string_view value) {
  static constexpr char kDigits[] = "0123456789abcdef";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) {
      to.append("\\x").push_back(kDigits[byte >> 4]);
      to.push_back(kDigits[byte & 15]);
      continue;
    }
    if (c == '\n' || c == '\\') to.push_back('\\');
    to.push_back(c == '\n' ? 'n' : c);
  }
}

void append_query(std::string& key, std::string_view query) {
  if (query.empty()) return;
  key.push_back('?');
  append_escaped(key, query, false);
}

// The headers of a scope as a list or tuple, borrowed; any iterable will do (ASGI), and is replaced by a list.
bool take_headers(PyObject* scope, PyObject*& headers) {
  static PyObject* const kHeaders = PyUnicode_InternFromString("headers");
  if (!PyDict_Check(scope)) return refuse("scope must be a dict");
  headers = item(scope, kHeaders);
  if (headers == nullptr || PyList_Check(headers) || PyTuple_Check(headers)) return true;
  headers = PySequence_List(headers);
  const bool kept = headers != nullptr && PyDict_SetItem(scope, kHeaders, headers) == 0;
  Py_XDECREF(headers);
  return kept;
}

bool is_pair(PyObject* o) noexcept { return (PyTuple_Check(o) || PyList_Check(o)) && PySequence_Fast_GET_SIZE(o) == 2; }

}  // namespace

http::Request OwnedRequest::view() const noexcept {
  http::Request r;
  r.method = method;
  r.authorization = authorization;
  r.cookie = cookie;
  r.body = body;
  r.upgrade = upgrade;
  r.cache_control = cache_control;
  r.pragma = pragma;
  r.if_none_match = if_none_match;
  r.if_modified_since = if_modified_since;
  r.if_match = if_match;
  r.if_unmodified_since = if_unmodified_since;
  r.range = range;
  r.if_range = if_range;
  return r;
}

bool read_wsgi(PyObject* environ, const FrontOptions& options, OwnedRequest& request, std::string& key) {
  if (!PyDict_Check(environ)) return refuse("environ must be a dict");
  const Names& n = names();
  request.method = text_of(item(environ, n.method));
  for (const auto& [field, name] : n.fields) {
    if (PyObject* value = item(environ, field)) set_field(request, name, text_of(value), options);
  }
  const std::string_view length = text_of(item(environ, n.content_length));
  if (!length.empty()) set_field(request, "content-length", length, options);
  const std::string_view scheme = text_of(item(environ, n.scheme));
  append_escaped(key, scheme, true);
  key += "://";
  if (PyObject* host = item(environ, n.host)) {
    append_host(key, text_of(host), scheme);
  } else {
    std::string server(text_of(item(environ, n.server)));
    server.append(":").append(text_of(item(environ, n.port)));
    append_host(key, server, scheme);
  }
  append_part(key, item(environ, n.script), true);
  append_part(key, item(environ, n.path), true);
  append_query(key, text_of(item(environ, n.query)));
  return true;
}

bool read_asgi(PyObject* scope, const FrontOptions& options, OwnedRequest& request, std::string& key) {
  if (!PyDict_Check(scope)) return refuse("scope must be a dict");
  static PyObject* const kMethod = PyUnicode_InternFromString("method");
  static PyObject* const kScheme = PyUnicode_InternFromString("scheme");
  static PyObject* const kPath = PyUnicode_InternFromString("path");
  static PyObject* const kQuery = PyUnicode_InternFromString("query_string");
  request.method = text_of(item(scope, kMethod));
  static PyObject* const kRoot = PyUnicode_InternFromString("root_path");
  PyObject* headers = nullptr;
  if (!take_headers(scope, headers)) return false;
  std::string_view host;
  if (headers != nullptr) {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(headers); ++i) {
      PyObject* pair = PySequence_Fast_GET_ITEM(headers, i);
      if (!is_pair(pair)) return refuse("scope[\"headers\"] must hold pairs");
      const std::string_view name = text_of(PySequence_Fast_GET_ITEM(pair, 0));
      const std::string_view value = text_of(PySequence_Fast_GET_ITEM(pair, 1));
      if (name == "host") {
        host = value;
      } else {
        set_field(request, name, value, options);
      }
    }
  }
  const std::string_view scheme = text_of(item(scope, kScheme));
  append_escaped(key, scheme.empty() ? "http" : scheme, true);
  key += "://";
  append_host(key, host, scheme);
  // `path` and not `raw_path`: it is what the app routes by, and what it routes alike may be answered alike.
  // Older versions of Starlette take a mounted app's prefix off it.
  PyObject* path = item(scope, kPath);
  PyObject* root = item(scope, kRoot);
  if (!text_of(path).starts_with(text_of(root))) append_part(key, root, true);
  append_part(key, path, true);
  append_query(key, text_of(item(scope, kQuery)));
  return true;
}

bool read_variant(PyObject* raw, bool asgi, const std::vector<std::string>& names, std::string& text) {
  for (const std::string& name : names) {
    std::string value;
    bool there = false;
    if (asgi) {
      PyObject* headers = nullptr;
      if (!take_headers(raw, headers)) return false;
      for (Py_ssize_t i = 0; headers != nullptr && i < PySequence_Fast_GET_SIZE(headers); ++i) {
        PyObject* pair = PySequence_Fast_GET_ITEM(headers, i);
        if (!is_pair(pair) || text_of(PySequence_Fast_GET_ITEM(pair, 0)) != name) continue;
        append_field(value, text_of(PySequence_Fast_GET_ITEM(pair, 1)), name == "cookie" ? "; " : ", ");
        there = true;
      }
    } else {
      std::string key = name == "content-type" || name == "content-length" ? "" : "HTTP_";
      for (const char c : name)
        key.push_back(c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
      if (PyObject* found = PyDict_GetItemString(raw, key.c_str())) {
        value = text_of(found);
        there = true;
      }
    }
    text += name;
    text += there ? "=" : "-";  // absent is not empty
    append_line(text, http::normalised(value));
    text.push_back('\n');
  }
  return true;
}

}  // namespace stillwarm::py
