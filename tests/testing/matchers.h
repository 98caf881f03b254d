// GoogleMock matchers for absl::Status and absl::StatusOr.
// Delete this file when the oldest supported Abseil brings status_matchers.h.

#ifndef SWITCHYARD_TESTS_TESTING_MATCHERS_H_
#define SWITCHYARD_TESTS_TESTING_MATCHERS_H_

#include <ostream>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"

namespace switchyard::testing {
namespace internal {

inline const absl::Status& GetStatus(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& result) {
  return result.status();
}

class IsOkMatcher {
 public:
  template <typename StatusLike>
  bool MatchAndExplain(const StatusLike& value,
                       ::testing::MatchResultListener* listener) const {
    const absl::Status& status = GetStatus(value);
    if (!status.ok()) *listener << "which has status " << status.ToString();
    return status.ok();
  }
  void DescribeTo(std::ostream* os) const { *os << "is OK"; }
  void DescribeNegationTo(std::ostream* os) const { *os << "isn't OK"; }
};

class StatusIsMatcher {
 public:
  StatusIsMatcher(absl::StatusCode code,
                  ::testing::Matcher<const std::string&> message)
      : code_(code), message_(std::move(message)) {}

  template <typename StatusLike>
  bool MatchAndExplain(const StatusLike& value,
                       ::testing::MatchResultListener* listener) const {
    const absl::Status& status = GetStatus(value);
    *listener << "which has status " << status.ToString();
    return status.code() == code_ &&
           message_.MatchAndExplain(std::string(status.message()), listener);
  }
  void DescribeTo(std::ostream* os) const {
    *os << "has code " << absl::StatusCodeToString(code_)
        << " and a message that ";
    message_.DescribeTo(os);
  }
  void DescribeNegationTo(std::ostream* os) const {
    *os << "has another code than " << absl::StatusCodeToString(code_)
        << ", or a message that ";
    message_.DescribeNegationTo(os);
  }

 private:
  const absl::StatusCode code_;
  const ::testing::Matcher<const std::string&> message_;
};

// Of StatusOr<T>; `Value` is its T.
template <typename StatusOrType>
class IsOkAndHoldsMatcher
    : public ::testing::MatcherInterface<const StatusOrType&> {
 public:
  using Value = typename StatusOrType::value_type;

  explicit IsOkAndHoldsMatcher(::testing::Matcher<const Value&> inner)
      : inner_(std::move(inner)) {}

  bool MatchAndExplain(
      const StatusOrType& result,
      ::testing::MatchResultListener* listener) const override {
    if (!result.ok()) {
      *listener << "which has status " << result.status().ToString();
      return false;
    }
    *listener << "which holds " << ::testing::PrintToString(*result) << " ";
    return inner_.MatchAndExplain(*result, listener);
  }
  void DescribeTo(std::ostream* os) const override {
    *os << "is OK and holds a value that ";
    inner_.DescribeTo(os);
  }
  void DescribeNegationTo(std::ostream* os) const override {
    *os << "isn't OK, or holds a value that ";
    inner_.DescribeNegationTo(os);
  }

 private:
  const ::testing::Matcher<const Value&> inner_;
};

// Becomes a matcher of whatever StatusOr it is compared with.
template <typename Inner>
class IsOkAndHoldsFactory {
 public:
  explicit IsOkAndHoldsFactory(Inner inner) : inner_(std::move(inner)) {}

  template <typename T>
  operator ::testing::Matcher<T>() const {  // NOLINT: implicit, as gmock's are
    using StatusOrType = std::remove_cv_t<std::remove_reference_t<T>>;
    using Value = typename StatusOrType::value_type;
    return ::testing::Matcher<T>(new IsOkAndHoldsMatcher<StatusOrType>(
        ::testing::SafeMatcherCast<const Value&>(inner_)));
  }

 private:
  const Inner inner_;
};

}  // namespace internal

// EXPECT_THAT(DoSomething(), IsOk());
inline ::testing::PolymorphicMatcher<internal::IsOkMatcher> IsOk() {
  return ::testing::MakePolymorphicMatcher(internal::IsOkMatcher());
}

// EXPECT_THAT(Parse("x"), StatusIs(absl::StatusCode::kInvalidArgument,
//                                  HasSubstr("at byte 0")));
inline ::testing::PolymorphicMatcher<internal::StatusIsMatcher> StatusIs(
    absl::StatusCode code,
    ::testing::Matcher<const std::string&> message = ::testing::_) {
  return ::testing::MakePolymorphicMatcher(
      internal::StatusIsMatcher(code, std::move(message)));
}

// EXPECT_THAT(Parse("7"), IsOkAndHolds(7)); takes a value or a matcher.
template <typename Inner>
internal::IsOkAndHoldsFactory<std::decay_t<Inner>> IsOkAndHolds(Inner&& inner) {
  return internal::IsOkAndHoldsFactory<std::decay_t<Inner>>(
      std::forward<Inner>(inner));
}

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_MATCHERS_H_
