// What each command of `switchyard` is for, and which flags it takes.
//
// Above: main.cc, which defines the flags and reads them.

#ifndef SWITCHYARD_SWITCHYARD_COMMAND_FLAGS_H_
#define SWITCHYARD_SWITCHYARD_COMMAND_FLAGS_H_

#include <vector>

#include "base/command_line.h"

namespace switchyard {

std::vector<CommandFlags> FlagsOfCommands();

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_COMMAND_FLAGS_H_
