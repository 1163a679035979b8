// Client tracking, as both ears of the Redis tier use it.
//
// Thread rule: constants.
// Refuses to know: connections.
#pragma once

#include <cstddef>
#include <string_view>

#include "core/base/entry.hpp"

namespace stillwarm {

inline constexpr std::string_view kTracked = "__redis__:invalidate";  // the channel of its messages
inline constexpr int kTracks = 60000;                                 // the first version that does
inline constexpr std::size_t kMostExamined = 4'096;                   // more at once are not looked at one by one
inline constexpr Nanos kSilence = kSecond;  // so long a subscription may leave a sign of life out

}  // namespace stillwarm
