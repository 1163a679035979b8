#include "core/remote/redis_tls.hpp"

#include "core/remote/remote_tier.hpp"

#ifdef STILLWARM_REDIS_TLS

#include <arpa/inet.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <new>
#include <string_view>

#include "core/remote/fork_gate.hpp"
#include "core/remote/watchdog.hpp"

namespace stillwarm {

namespace {

struct FreeOpenSsl {
  void operator()(SSL_CTX* context) const noexcept { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const noexcept { SSL_free(ssl); }
};
using Context = std::unique_ptr<SSL_CTX, FreeOpenSsl>;
using Ssl = std::unique_ptr<SSL, FreeOpenSsl>;

// What others left in this thread's queue of errors is not ours to explain, and ours not theirs.
class OwnErrors {
 public:
  OwnErrors() { ERR_clear_error(); }
  OwnErrors(const OwnErrors&) = delete;
  OwnErrors& operator=(const OwnErrors&) = delete;
  ~OwnErrors() { ERR_clear_error(); }

 private:
  const WithinLibrary within_;
};

// The socket and hiredis wait for nothing, as long as it lives.
class Unblocked {
 public:
  explicit Unblocked(redisContext& link) : link_(link), flags_(::fcntl(link.fd, F_GETFL)) {
    if (flags_ < 0 || ::fcntl(link.fd, F_SETFL, flags_ | O_NONBLOCK) != 0) {
      throw TierFailure({TierFault::kUnavailable, "", "the connection's socket cannot be set up"});
    }
    link_.flags &= ~REDIS_BLOCK;
  }
  Unblocked(const Unblocked&) = delete;
  Unblocked& operator=(const Unblocked&) = delete;
  ~Unblocked() {
    link_.flags |= REDIS_BLOCK;
    static_cast<void>(::fcntl(link_.fd, F_SETFL, flags_));
  }

 private:
  redisContext& link_;
  const int flags_;
};

// Why OpenSSL failed, in its words; empty: it was the socket, or the other side is gone.
std::string reason() {
  const unsigned long error = ERR_peek_error();
  if (error == 0 || ERR_GET_LIB(error) == ERR_LIB_SYS) return {};  // errno says it
#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
  if (ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return {};
#endif
  const char* text = ERR_reason_error_string(error);
  return text != nullptr ? text : "error " + std::to_string(error);
}

// ------------------------------------------------------------------------------------------------------------- files

int no_passphrase(char* /*into*/, int /*size*/, int /*writes*/, void* /*given*/) { return -1; }  // asks no terminal

std::string unreadable(std::string_view name, const std::string& path) {
  std::string why = reason();
  return std::string(name) + "='" + path + "': " + (why.empty() ? "it cannot be read" : why);
}

// With a turn taken. `problem` is set where there is none.
Context context_of(const RedisTls& tls, std::string& problem) {
  Context context(SSL_CTX_new(TLS_client_method()));
  if (context == nullptr) throw std::bad_alloc();
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_default_passwd_cb(context.get(), no_passphrase);
  SSL_CTX_set_verify(context.get(), tls.verified ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  if (tls.authorities.empty()) {
    SSL_CTX_set_default_verify_paths(context.get());
  } else if (SSL_CTX_load_verify_locations(context.get(), tls.authorities.c_str(), nullptr) != 1) {
    problem = unreadable("ssl_ca_certs", tls.authorities);
  }
  if (!problem.empty() || tls.certificate.empty()) return context;
  const std::string& key = tls.key.empty() ? tls.certificate : tls.key;
  if (SSL_CTX_use_certificate_chain_file(context.get(), tls.certificate.c_str()) != 1) {
    problem = unreadable("ssl_certfile", tls.certificate);
  } else if (SSL_CTX_use_PrivateKey_file(context.get(), key.c_str(), SSL_FILETYPE_PEM) != 1) {
    problem = unreadable("ssl_keyfile", key);
  }
  return context;
}

// --------------------------------------------------------------------------------------------------------- handshake

bool is_ip(const std::string& host) {
  unsigned char bytes[sizeof(in6_addr)];
  return ::inet_pton(AF_INET, host.c_str(), bytes) == 1 || ::inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

// Whom the certificate has to name, and the name that a server with several of them is asked by.
void expect_host(SSL* ssl, const std::string& host, bool verified) {
  bool done = true;
  if (!is_ip(host)) {
    done = SSL_set_tlsext_host_name(ssl, host.c_str()) == 1;
    if (verified) done = done && SSL_set1_host(ssl, host.c_str()) == 1;
  } else if (verified) {
    done = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) == 1;
  }
  if (!done) throw TierFailure({TierFault::kRejected, "TLS", "TLS: the host's name cannot be one of a certificate"});
}

[[noreturn]] void refuse(SSL* ssl, const std::string& host, bool verified) {
  const long verdict = SSL_get_verify_result(ssl);
  if (verified && verdict != X509_V_OK) {
    const std::string why = X509_verify_cert_error_string(verdict);
    throw TierFailure({TierFault::kRejected, "TLS", "TLS: the certificate of " + host + " is not accepted: " + why});
  }
  if (const std::string why = reason(); !why.empty()) {
    throw TierFailure({TierFault::kRejected, "TLS", "TLS: the handshake with " + host + " failed: " + why});
  }
  throw TierFailure({TierFault::kUnavailable, "", "the connection was lost in the TLS handshake"});
}

void wait_for(const redisContext& link, short events, Nanos deadline) {
  for (;;) {
    const Nanos left = deadline - steady_now();
    if (left <= 0) throw TierFailure({TierFault::kTimeout, "", "no answer to the TLS handshake within the timeout"});
    pollfd ready{link.fd, events, 0};
    if (::poll(&ready, 1, static_cast<int>(std::min<Nanos>(left / 1'000'000 + 1, 1'000))) > 0) return;
  }
}

// -------------------------------------------------------------------------------------- hiredis's reads and writes

// Hiredis tells an interruption by errno alone, which OpenSSL leaves as it was when it fails by itself: then it would
// try again for ever. And its text for such a failure is that of errno.
template <class Operation>
ssize_t explained(redisContext& link, Operation&& operation) {
  ERR_clear_error();
  errno = 0;
  const ssize_t done = operation();
  if (done < 0) {
    const int number = errno;
    const std::string why = reason();
    ERR_clear_error();
    if (!why.empty()) {
      std::snprintf(link.errstr, sizeof link.errstr, "TLS: %s", why.c_str());
    } else if (number == 0 && link.err == REDIS_ERR_IO) {
      std::snprintf(link.errstr, sizeof link.errstr, "the connection was lost");
    }
    errno = number;
  }
  return done;
}

const redisContextFuncs* hiredis_own = nullptr;  // the same for every connection

ssize_t read_explained(redisContext* link, char* into, std::size_t size) {
  return explained(*link, [&] { return hiredis_own->read(link, into, size); });
}

ssize_t write_explained(redisContext* link) {
  const ssize_t done = explained(*link, [&] { return hiredis_own->write(link); });
  if (done >= 0 || errno != EINTR) return done;
  link->err = 0;  // a signal arrived: it is written once more
  link->errstr[0] = '\0';
  return 0;
}

// With a turn taken.
void explain_errors(redisContext& link) {
  static const redisContextFuncs ours = [&] {
    hiredis_own = link.funcs;
    redisContextFuncs functions = *link.funcs;
    functions.read = read_explained;
    functions.write = write_explained;
    return functions;
  }();
  link.funcs = &ours;
}

}  // namespace

std::string check_redis_tls(const RedisTls& tls) {
  const OwnErrors mine;
  std::string problem;
  context_of(tls, problem);
  return problem;
}

void begin_redis_tls(redisContext& link, const std::string& host, const RedisTls& tls, Nanos deadline) {
  const Unblocked now(link);
  SSL* ssl = nullptr;
  {
    const OwnErrors mine;
    std::string problem;
    const Context context = context_of(tls, problem);
    if (!problem.empty()) throw TierFailure({TierFault::kRejected, "TLS", "TLS: " + problem});
    Ssl made(SSL_new(context.get()));
    if (made == nullptr) throw std::bad_alloc();
    expect_host(made.get(), host, tls.verified);
    if (redisInitiateSSL(&link, made.get()) != REDIS_OK) refuse(made.get(), host, tls.verified);
    ssl = made.release();  // it is the connection's now
    explain_errors(link);
  }
  for (;;) {
    int error = SSL_ERROR_NONE;
    {
      const OwnErrors mine;
      const int done = SSL_do_handshake(ssl);
      if (done == 1) return;
      error = SSL_get_error(ssl, done);
      if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) refuse(ssl, host, tls.verified);
    }
    wait_for(link, error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline);
  }
}

int read_redis_tls(redisContext& link) {
  const Unblocked now(link);
  return redisBufferRead(&link);
}

}  // namespace stillwarm

#else

namespace stillwarm {

namespace {

constexpr const char* kNoTls = "this build of stillwarm has no TLS for Redis";

}  // namespace

std::string check_redis_tls(const RedisTls& /*tls*/) { return kNoTls; }

void begin_redis_tls(redisContext& /*link*/, const std::string& /*host*/, const RedisTls& /*tls*/, Nanos /*deadline*/) {
  throw TierFailure({TierFault::kRejected, "TLS", kNoTls});
}

int read_redis_tls(redisContext& /*link*/) { throw TierFailure({TierFault::kRejected, "TLS", kNoTls}); }

}  // namespace stillwarm

#endif
