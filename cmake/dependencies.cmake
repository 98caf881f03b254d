# Every package that Switchyard uses, all from Debian 12 or 13.
# Never a second Abseil or Protobuf beside those that gRPC was built with.
find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)  # module mode; before gRPC
find_package(absl CONFIG REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(nlohmann_json 3.11 CONFIG REQUIRED)
find_package(Boost 1.74 REQUIRED)  # Boost::headers: Beast and Asio
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
if(SWITCHYARD_BUILD_TESTS)
  find_package(GTest CONFIG REQUIRED)
endif()
find_package(OpenSSL REQUIRED)  # SHA-256 of weights, TLS

# Debian's gRPC has no imported target for reflection in every release.
find_library(GRPCPP_REFLECTION_LIBRARY grpc++_reflection REQUIRED)

# oneDNN: Debian's own CMake config wants OpenCL's development files.
find_path(DNNL_INCLUDE_DIR dnnl.hpp REQUIRED)
find_library(DNNL_LIBRARY dnnl REQUIRED)
add_library(switchyard_onednn_imported UNKNOWN IMPORTED)
set_target_properties(switchyard_onednn_imported PROPERTIES
  IMPORTED_LOCATION "${DNNL_LIBRARY}"
  INTERFACE_INCLUDE_DIRECTORIES "${DNNL_INCLUDE_DIR}")
