// Stop strings in a stream of text.

#ifndef SWITCHYARD_ROUTER_TEXT_STOP_MATCHER_H_
#define SWITCHYARD_ROUTER_TEXT_STOP_MATCHER_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace switchyard::router {

// Lets text through up to the first occurrence of a stop string (which is not let
// through), holding back only what may still become one. Not thread-safe.
class StopMatcher {
 public:
  // Empty strings are ignored.
  explicit StopMatcher(std::vector<std::string> stop);

  // The text that is certain now. After stopped() it is always "".
  std::string Add(absl::string_view text);
  // What was held back, at the end of the stream.
  std::string Flush();
  bool stopped() const { return stopped_; }
  // Which string matched; "" before stopped().
  const std::string& matched() const { return matched_; }

 private:
  const std::vector<std::string> stop_;
  std::string held_;
  std::string matched_;
  bool stopped_ = false;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_TEXT_STOP_MATCHER_H_
