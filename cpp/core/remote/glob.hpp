// Does a key match a glob? As Python's fnmatch.translate means it, by which the memory tier matches patterns.
//
// Thread rule: pure function, any thread.
// Refuses to know: where the texts come from.
//
//   *  any run of characters, none included      [abc] [a-z]  one of these
//   ?  one character                             [!abc]       one that is none of these
//
// Both texts are UTF-8 and compared by character; a byte that belongs to no character counts as one of its own. A '['
// that is never closed stands for itself, a ']' that comes first in its class too, and "z-a" is an empty range. Nothing
// quotes. Where an empty range opens a class and '!' follows, Python takes that '!' for a negation; here it is a '!'.
//
// At most pattern * text steps: a later '*' never has to give back what an earlier one took, so only the last is tried
// again.
#pragma once

#include <string_view>

namespace stillwarm {

bool glob_matches(std::string_view pattern, std::string_view text) noexcept;

}  // namespace stillwarm
