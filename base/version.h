// The version of this build.

#ifndef SWITCHYARD_BASE_VERSION_H_
#define SWITCHYARD_BASE_VERSION_H_

namespace switchyard {

// As in the project() call of the root CMakeLists.txt: "1.2.3".
extern const char kVersion[];

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_VERSION_H_
