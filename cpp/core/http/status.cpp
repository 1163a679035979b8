#include "core/http/status.hpp"

#include <algorithm>
#include <array>

#include "core/http/grammar.hpp"

namespace stillwarm::http {
namespace {

// A bare item that may be a token (RFC 8941, 3.3.4).
bool is_structured_token(std::string_view text) noexcept {
  return !text.empty() && (grammar::is_alpha(text.front()) || text.front() == '*') &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return grammar::is_token_char(c) || c == ':' || c == '/'; });
}

void append_string(std::string& to, std::string_view text) {
  to += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') to += '\\';
    to += byte < 0x20 || byte > 0x7e ? '?' : c;
  }
  to += '"';
}

}  // namespace

std::string_view text_of(Why why) noexcept {
  switch (why) {
    case Why::kNone:
      return {};
    case Why::kMethod:
      return "method";
    case Why::kRequestBody:
      return "request-body";
    case Why::kUpgrade:
      return "upgrade";
    case Why::kPrecondition:
      return "precondition";
    case Why::kRangeMiss:
      return "range-miss";
    case Why::kCookie:
      return "cookie";
    case Why::kAuthorization:
      return "authorization";
    case Why::kRequestNoStore:
      return "request-no-store";
    case Why::kRequestNoCache:
      return "request-no-cache";
    case Why::kKeyTooLong:
      return "key-too-long";
    case Why::kNoStore:
      return "no-store";
    case Why::kNoCache:
      return "no-cache";
    case Why::kPrivate:
      return "private";
    case Why::kSetCookie:
      return "set-cookie";
    case Why::kVaryStar:
      return "vary-star";
    case Why::kStatus:
      return "status";
    case Why::kPartial:
      return "partial";
    case Why::kNoLifetime:
      return "no-lifetime";
    case Why::kExpired:
      return "expired";
    case Why::kMalformed:
      return "malformed";
  }
  return {};
}

std::string_view text_of(Forward forward) noexcept {
  switch (forward) {
    case Forward::kNone:
      return {};
    case Forward::kBypass:
      return "bypass";
    case Forward::kMethod:
      return "method";
    case Forward::kUriMiss:
      return "uri-miss";
    case Forward::kVaryMiss:
      return "vary-miss";
    case Forward::kMiss:
      return "miss";
    case Forward::kRequest:
      return "request";
    case Forward::kStale:
      return "stale";
    case Forward::kPartial:
      return "partial";
  }
  return {};
}

void append_cache_status(std::string& to, const Status& status) {
  to += "stillwarm";
  if (status.hit) {  // RFC 9211, 2.1 and 2.2: either this or fwd and what goes with it
    to += "; hit";
  } else if (status.forward != Forward::kNone) {
    to += "; fwd=";
    to += text_of(status.forward);
    if (status.forward_status >= 100 && status.forward_status <= 999) {
      to += "; fwd-status=";
      to += std::to_string(status.forward_status);
    }
    if (status.stored) to += "; stored";
    if (status.collapsed) to += "; collapsed";
  }
  if (status.has_ttl) {
    to += "; ttl=";
    to += std::to_string(status.ttl);
  }
  if (!status.key.empty()) {
    to += "; key=";
    append_string(to, status.key);
  }
  if (!status.detail.empty()) {
    to += "; detail=";
    if (is_structured_token(status.detail)) {
      to += status.detail;
    } else {
      append_string(to, status.detail);
    }
  }
}

}  // namespace stillwarm::http
