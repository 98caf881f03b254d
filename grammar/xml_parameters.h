// An object's members as Qwen3-Coder writes the arguments of a call:
//
//   <parameter=NAME>\nvalue\n</parameter>\n ...
//
// in the schema's order. A value that may be a string is plain text; what would
// end it earlier in a reader's eyes (</parameter, <parameter=, </function,
// </tool_call, <tool_call) does not occur in it. Other values are JSON.
//
// Above: tool_calls.h, structural_tag.h. Below: json_schema.h, free_text.h.

#ifndef SWITCHYARD_GRAMMAR_XML_PARAMETERS_H_
#define SWITCHYARD_GRAMMAR_XML_PARAMETERS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/json.h"
#include "grammar/budget.h"
#include "grammar/dfa.h"
#include "grammar/expression.h"
#include "grammar/json_schema.h"

namespace switchyard::grammar {

// Not thread-safe. The pointers that it is given are not owned.
class XmlParameters {
 public:
  enum class Layout {
    kLines,  // as above, and no other white space
    kFree,   // white space, or none, before, between and behind parameters and
             // around values that are not text
  };

  XmlParameters(Budget* budget, Layout layout)
      : budget_(budget), layout_(layout) {}

  // Of a schema of an object. `path` stands before paths in messages.
  // INVALID_ARGUMENT: a part of it cannot be promised, where `compiler` is
  // strict.
  absl::StatusOr<Expression> Compile(SchemaCompiler* compiler,
                                     const Json& schema,
                                     const std::string& path);

 private:
  // How one parameter is laid out.
  struct Marks {
    std::string behind_name, behind_value;
    Expression gap;  // around parameters, and values that are not text
  };
  Marks MarksOf(SchemaCompiler* compiler) const;

  // Parameters of any name.
  absl::StatusOr<Expression> Open(const Marks& marks);
  absl::StatusOr<Expression> Value(SchemaCompiler* compiler, const Json& value,
                                   const Marks& marks, const std::string& path);
  // Text in a parameter, of these contents; null: any.
  absl::StatusOr<Expression> PlainText(
      const std::shared_ptr<const Dfa>& contents);

  Budget* const budget_;
  const Layout layout_;
  std::shared_ptr<const Dfa> plain_;
};

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_XML_PARAMETERS_H_
