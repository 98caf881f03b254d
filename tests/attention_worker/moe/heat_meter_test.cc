#include "attention_worker/moe/heat_meter.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/attention_worker/moe/dispatch_problem.h"
#include "tests/attention_worker/moe/dispatcher_fixture.h"

namespace switchyard::attention_worker {
namespace {

using ::testing::IsEmpty;
using HeatMeterTest = DispatcherFixture;

TEST_F(HeatMeterTest, CountsChoicesAndChangesNothing) {
  Add("a", Everything());
  auto dispatcher = Make();
  HeatMeter meter(dispatcher.get(), Everything().num_layers(),
                  Everything().num_experts());
  EXPECT_THAT(meter.Take(), IsEmpty());
  const DispatchProblem problem = RowsFor({{1, 2}, {2, 3}});
  const DispatchRequest request = problem.Request();
  EXPECT_EQ(Outputs(meter.Dispatch(request, Nothing), kHidden),
            problem.Expected());
  std::vector<uint32_t> expected(Everything().num_layers() *
                                 Everything().num_experts());
  uint32_t* const layer =
      expected.data() + request.layer * Everything().num_experts();
  layer[1] = 1;
  layer[2] = 2;
  layer[3] = 1;
  EXPECT_EQ(meter.Take(), expected);
  EXPECT_THAT(meter.Take(), IsEmpty());
}

}  // namespace
}  // namespace switchyard::attention_worker
