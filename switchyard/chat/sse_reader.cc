#include "switchyard/chat/sse_reader.h"

#include <utility>

#include "absl/strings/strip.h"

namespace switchyard {

std::vector<std::string> SseReader::Add(absl::string_view bytes) {
  std::vector<std::string> events;
  while (true) {
    const size_t end = bytes.find('\n');
    if (end == absl::string_view::npos) {
      partial_line_.append(bytes.data(), bytes.size());
      return events;
    }
    partial_line_.append(bytes.data(), end);
    bytes.remove_prefix(end + 1);
    const std::string line = std::exchange(partial_line_, std::string());
    TakeLine(absl::StripSuffix(line, "\r"), &events);
  }
}

void SseReader::TakeLine(absl::string_view line,
                         std::vector<std::string>* events) {
  if (line.empty()) {
    if (has_data_) events->push_back(std::exchange(data_, std::string()));
    has_data_ = false;
    return;
  }
  if (!absl::ConsumePrefix(&line, "data:")) return;
  absl::ConsumePrefix(&line, " ");
  if (has_data_) data_ += '\n';
  data_.append(line.data(), line.size());
  has_data_ = true;
}

}  // namespace switchyard
