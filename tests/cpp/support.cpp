// The allocator of the test program: malloc, unless the calling thread's countdown has run out.
//
// Thread rule: any thread; the countdown is its own.
// Refuses to know: who allocates.
#include "support.hpp"

#include <cstdlib>

namespace stillwarm::test {

thread_local std::int64_t allocations_left = -1;

namespace {

void* allocate(std::size_t size) noexcept {
  if (allocations_left == 0) return nullptr;
  if (allocations_left > 0) --allocations_left;
  return std::malloc(size != 0 ? size : 1);
}

void* allocate_or_throw(std::size_t size) {
  if (void* p = allocate(size)) return p;
  throw std::bad_alloc();
}

}  // namespace
}  // namespace stillwarm::test

// All of them, so that no allocator of a sanitizer is mixed with this one.
void* operator new(std::size_t size) { return stillwarm::test::allocate_or_throw(size); }
void* operator new[](std::size_t size) { return stillwarm::test::allocate_or_throw(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return stillwarm::test::allocate(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return stillwarm::test::allocate(size); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }
