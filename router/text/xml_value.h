// The values of XML parameters: text, given a type by the tool's JSON schema.

#ifndef SWITCHYARD_ROUTER_TEXT_XML_VALUE_H_
#define SWITCHYARD_ROUTER_TEXT_XML_VALUE_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/json.h"

namespace switchyard::router {

// What a parameter's schema allows. Copyable value.
class XmlValueType {
 public:
  // Unknown: JSON where it parses to something else than a string, else text.
  XmlValueType() = default;
  // From "type", or the types of "anyOf" and "oneOf".
  static XmlValueType FromSchema(const Json& schema);

  // The value as JSON text. A value that fits no allowed type stays a string.
  std::string ToJson(absl::string_view value) const;

  // Is every value that begins with `beginning` (not empty) a string?
  bool IsText(absl::string_view beginning) const;

 private:
  enum class Kind {
    kString,
    kNull,
    kInteger,
    kNumber,
    kBoolean,
    kObject,
    kArray
  };

  void AddTypes(const Json& schema, int depth);
  void AddType(absl::string_view name);
  bool Allows(Kind kind) const;

  std::vector<Kind> kinds_;  // in the schema's order; empty: unknown
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_TEXT_XML_VALUE_H_
