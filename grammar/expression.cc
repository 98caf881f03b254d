#include "grammar/expression.h"

#include <utility>

#include "base/check.h"

namespace switchyard::grammar {
namespace {

using Kind = ExpressionNode::Kind;

std::shared_ptr<ExpressionNode> Node(Kind kind) {
  auto node = std::make_shared<ExpressionNode>();
  node->kind = kind;
  return node;
}

}  // namespace

Expression Empty() { return Node(Kind::kSequence); }
Expression Nothing() { return Node(Kind::kChoice); }

Expression Byte(uint8_t low, uint8_t high) {
  auto node = Node(Kind::kBytes);
  node->low = low;
  node->high = high;
  return node;
}

Expression Literal(absl::string_view bytes) {
  auto node = Node(Kind::kSequence);
  for (const char c : bytes) {
    const uint8_t byte = static_cast<uint8_t>(c);
    node->children.push_back(Byte(byte, byte));
  }
  return node;
}

Expression Sequence(std::vector<Expression> parts) {
  if (parts.size() == 1) return std::move(parts[0]);
  auto node = Node(Kind::kSequence);
  node->children = std::move(parts);
  return node;
}

Expression Choice(std::vector<Expression> options) {
  if (options.size() == 1) return std::move(options[0]);
  auto node = Node(Kind::kChoice);
  node->children = std::move(options);
  return node;
}

Expression Repeat(Expression what, int min, int max) {
  SY_CHECK(min >= 0 && (max < 0 || max >= min));
  auto node = Node(Kind::kRepeat);
  node->min = min;
  node->max = max;
  node->children.push_back(std::move(what));
  return node;
}

Expression Automaton(std::shared_ptr<const Dfa> dfa) {
  auto node = Node(Kind::kDfa);
  node->dfa = std::move(dfa);
  return node;
}

Expression Rule(RuleId rule) {
  auto node = Node(Kind::kRule);
  node->rule = rule;
  return node;
}

}  // namespace switchyard::grammar
