#include "base/version.h"

namespace switchyard {

const char kVersion[] = SWITCHYARD_VERSION;

}  // namespace switchyard
