// TLS under a connection to Redis: the handshake, whose certificate is believed, and what an error means.
//
// Thread rule: any thread; a connection by one at a time. See redis_tls.cpp for forks.
// Refuses to know: commands. It alone includes OpenSSL, and beside redis_link hiredis; in a build without
// STILLWARM_REDIS_TLS (hiredis before 1.0) it refuses everything.
//
// Believed is who shows a certificate for the host that was asked for, by an authority that is known: those in a file,
// else the system's. TLS 1.2 or newer. Files are read again for each connection, so that they can be renewed.
#pragma once

#include <string>

#include "core/base/entry.hpp"

struct redisContext;  // hiredis's

namespace stillwarm {

struct RedisTls {
  bool on = false;
  bool verified = true;                         // false: whoever answers is believed
  std::string authorities{}, certificate, key;  // PEM files; empty: the system's; none; in the certificate's file
};

// What is wrong with the files, without connecting; empty: nothing. Names them as a URL does.
std::string check_redis_tls(const RedisTls& tls);

// The handshake on a connected socket; `deadline` as steady_now has it. Throws TierFailure.
void begin_redis_tls(redisContext& link, const std::string& host, const RedisTls& tls, Nanos deadline);

// Reads what has arrived and waits for nothing, where a record is there in part; otherwise as redisBufferRead.
int read_redis_tls(redisContext& link);

}  // namespace stillwarm
