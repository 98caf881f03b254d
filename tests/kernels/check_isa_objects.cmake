# Fails unless the object files of kernels/simd share nothing with the rest of the
# binary but their one table. A weak symbol (an inline function, a template) compiled
# for AVX-512 could be the copy that the linker keeps for everyone, and kill an older
# CPU far away from the kernels.
#
#   cmake -DNM=nm "-DOBJECTS=a.o;b.o" -P check_isa_objects.cmake
set(checked 0)
foreach(object IN LISTS OBJECTS)
  if(NOT object MATCHES "/simd/")
    continue()
  endif()
  execute_process(
    COMMAND "${NM}" --defined-only --extern-only -C "${object}"
    OUTPUT_VARIABLE symbols
    COMMAND_ERROR_IS_FATAL ANY)
  string(STRIP "${symbols}" symbols)
  string(REPLACE "\n" ";" symbols "${symbols}")
  foreach(symbol IN LISTS symbols)
    if(NOT symbol MATCHES "^[0-9a-f]+ [DR] switchyard::kernels::k[A-Za-z0-9]+(Kernels|QuantizedMatmul|Bf16Matmul)$")
      message(SEND_ERROR "${object} defines: ${symbol}")
    endif()
  endforeach()
  math(EXPR checked "${checked} + 1")
endforeach()
if(checked EQUAL 0)
  message(FATAL_ERROR "no object file of kernels/simd among: ${OBJECTS}")
endif()
