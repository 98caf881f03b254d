# switchyard_library, switchyard_binary, switchyard_test: one call a target, with its
# edges declared.

add_library(switchyard_flags INTERFACE)
target_compile_options(switchyard_flags INTERFACE
  -Wall -Wextra -Werror -Wno-unused-parameter
  # The kernels say themselves which operations are fused (kernels/kernel_table.h).
  -ffp-contract=off -fno-math-errno)
target_include_directories(switchyard_flags INTERFACE "${CMAKE_SOURCE_DIR}")
target_link_libraries(switchyard_flags INTERFACE Threads::Threads)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(switchyard_flags INTERFACE -Wthread-safety)
endif()
if(SWITCHYARD_SANITIZE STREQUAL "address")
  target_compile_options(switchyard_flags INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(switchyard_flags INTERFACE -fsanitize=address,undefined)
elseif(SWITCHYARD_SANITIZE STREQUAL "thread")
  target_compile_options(switchyard_flags INTERFACE
    -fsanitize=thread -fno-omit-frame-pointer
    # GCC's remark that fences are not seen; Clang does not know the option.
    $<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
  target_link_options(switchyard_flags INTERFACE -fsanitize=thread)
endif()

# switchyard_library(NAME name SRCS a.cc ... [DEPS target ...])
# Headers are found from the root of the tree: #include "base/check.h".
function(switchyard_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(${ARG_NAME} STATIC ${ARG_SRCS})
    target_link_libraries(${ARG_NAME} PUBLIC switchyard_flags ${ARG_DEPS})
  else()
    add_library(${ARG_NAME} INTERFACE)
    target_link_libraries(${ARG_NAME} INTERFACE switchyard_flags ${ARG_DEPS})
  endif()
endfunction()

function(switchyard_binary)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE switchyard_flags ${ARG_DEPS})
endfunction()

# switchyard_test(NAME name SRCS a_test.cc ... [DEPS target ...] [TIMEOUT seconds])
# A GoogleTest binary; each of its tests is one of CTest's, called name/Suite.Test.
function(switchyard_test)
  cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "SRCS;DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(SWITCHYARD_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 5")
  endif()
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE
    switchyard_flags ${ARG_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  target_compile_definitions(${ARG_NAME} PRIVATE
    SWITCHYARD_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  include(GoogleTest)
  gtest_discover_tests(${ARG_NAME}
    TEST_PREFIX "${ARG_NAME}/"
    PROPERTIES TIMEOUT ${ARG_TIMEOUT}
    DISCOVERY_TIMEOUT 60)
endfunction()
