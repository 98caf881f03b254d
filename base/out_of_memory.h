// What happens when an allocation fails.

#ifndef SWITCHYARD_BASE_OUT_OF_MEMORY_H_
#define SWITCHYARD_BASE_OUT_OF_MEMORY_H_

namespace switchyard {

// From now on an allocation by `new` that fails ends the process with exit code
// 1 and a line on stderr: which thread wanted more, how much memory the process
// has, and what limits it. Without this std::bad_alloc, which nobody catches,
// would abort it. Call first in main.
//
// Memory that grows with load has a budget , so this is the
// end of a process whose budgets and limits do not fit each other: another
// replica serves on, and this one is started again.
void ExitWhenOutOfMemory();

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_OUT_OF_MEMORY_H_
