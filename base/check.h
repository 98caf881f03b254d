// Checks of our own invariants. What comes from outside (a request, a file, a
// peer, a flag) is never checked here: it gets an absl::Status.

#ifndef SWITCHYARD_BASE_CHECK_H_
#define SWITCHYARD_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

// Stops the process when `condition` is false: a broken promise of our own
// code.
#define SY_CHECK(condition)                                           \
  do {                                                                \
    if (!(condition)) {                                               \
      std::fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, \
                   #condition);                                       \
      std::abort();                                                   \
    }                                                                 \
  } while (false)

// SY_CHECK in debug builds, nothing in release builds: for inner loops.
#ifdef NDEBUG
#define SY_DCHECK(condition) static_cast<void>(sizeof((condition) ? 1 : 0))
#else
#define SY_DCHECK(condition) SY_CHECK(condition)
#endif

#endif  // SWITCHYARD_BASE_CHECK_H_
