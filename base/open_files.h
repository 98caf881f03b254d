// How many files, connections among them, this process may have open.

#ifndef SWITCHYARD_BASE_OPEN_FILES_H_
#define SWITCHYARD_BASE_OPEN_FILES_H_

#include <cstdint>

namespace switchyard {

// Raises the process's soft limit to its hard one: shells and service managers
// set the soft one to 1,024 for the sake of old programs that use select().
// Returns the limit that holds now.
int64_t RaiseOpenFileLimit();

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_OPEN_FILES_H_
