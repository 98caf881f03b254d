// Tells ThreadSanitizer of an order between threads that it cannot see: that of
// an object which goes through a library that is not built with it, such as a
// tag through a completion queue of gRPC's. Nothing in other builds.

#ifndef SWITCHYARD_BASE_HAND_OVER_H_
#define SWITCHYARD_BASE_HAND_OVER_H_

#if defined(__SANITIZE_THREAD__)
#define SWITCHYARD_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SWITCHYARD_THREAD_SANITIZER 1
#endif
#endif

#ifdef SWITCHYARD_THREAD_SANITIZER
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#endif

namespace switchyard {

// All that this thread has done comes before what the thread does that will
// take `object` over.
inline void HandOver([[maybe_unused]] void* object) {
#ifdef SWITCHYARD_THREAD_SANITIZER
  __tsan_release(object);
#endif
}

// The other end.
inline void TakeOver([[maybe_unused]] void* object) {
#ifdef SWITCHYARD_THREAD_SANITIZER
  __tsan_acquire(object);
#endif
}

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_HAND_OVER_H_
