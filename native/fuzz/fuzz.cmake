# What scripts/fuzz.mjs runs. The code under test once, with the counters of libFuzzer and the sanitizers; an executable
# for each target; the addon in the same way, which drives JavaScript too.
set(FUZZ_OPTIONS -O1 -g1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
                 -Wall -Wextra -Wno-unknown-pragmas -Wno-unknown-warning-option)

add_library(fuzz_objects OBJECT native/io/arena.cc native/io/crc32c.cc)
file(GLOB FUZZ_SOURCES CONFIGURE_DEPENDS native/aes/*.cc native/keys/*.cc)
target_sources(fuzz_objects PRIVATE ${FUZZ_SOURCES})
target_include_directories(fuzz_objects PUBLIC native)
target_compile_options(fuzz_objects PUBLIC ${FUZZ_OPTIONS})
set_target_properties(fuzz_objects PROPERTIES POSITION_INDEPENDENT_CODE ON)

# GCC takes these from a pragma in the files, which clang does not know.
set_source_files_properties(native/aes/aesni.cc PROPERTIES COMPILE_OPTIONS "-msse4.1;-maes;-mpclmul")
set_source_files_properties(native/aes/vaes256.cc PROPERTIES COMPILE_OPTIONS "-mavx2;-maes;-mpclmul;-mvaes;-mvpclmulqdq")
set_source_files_properties(native/aes/vaes512.cc PROPERTIES COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512vl;-maes;-mpclmul;-mvaes;-mvpclmulqdq")

add_custom_target(fuzz)
foreach(target kernels runs keys arenas)
  add_executable(fuzz-${target} native/fuzz/${target}.cc)
  target_link_libraries(fuzz-${target} PRIVATE fuzz_objects Threads::Threads)
  target_link_options(fuzz-${target} PRIVATE -fsanitize=fuzzer,address,undefined)
  add_dependencies(fuzz fuzz-${target})
endforeach()

# For JavaScript: the addon, with libFuzzer inside. The runtime of AddressSanitizer, which is loaded before Node, has stubs
# of libFuzzer's functions: those inside must be the ones that are called.
file(GLOB FUZZ_ADDON_SOURCES CONFIGURE_DEPENDS native/napi/*.cc native/io/poller.cc native/io/socket.cc)
add_library(fuzz-addon MODULE ${FUZZ_ADDON_SOURCES} native/fuzz/js_driver.cc)
execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libclang_rt.fuzzer_no_main-${CMAKE_SYSTEM_PROCESSOR}.a
                OUTPUT_VARIABLE LIBFUZZER OUTPUT_STRIP_TRAILING_WHITESPACE)
set_target_properties(fuzz-addon PROPERTIES PREFIX "" SUFFIX ".node")
# The driver does not count itself.
set_source_files_properties(native/fuzz/js_driver.cc PROPERTIES SKIP_PRECOMPILE_HEADERS ON
  COMPILE_OPTIONS "-fno-sanitize=all;-fno-sanitize-coverage=inline-8bit-counters,pc-table,trace-cmp,indirect-calls")
target_precompile_headers(fuzz-addon PRIVATE <napi.h>)
target_include_directories(fuzz-addon SYSTEM PRIVATE ${CMAKE_JS_INC})
target_compile_definitions(fuzz-addon PRIVATE NAPI_VERSION=8 NODE_ADDON_API_CPP_EXCEPTIONS
                           NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS)
target_link_libraries(fuzz-addon PRIVATE fuzz_objects -Wl,--whole-archive ${LIBFUZZER} -Wl,--no-whole-archive
                      Threads::Threads)
target_link_options(fuzz-addon PRIVATE -fsanitize=address,undefined -shared-libasan -Wl,-Bsymbolic)
add_dependencies(fuzz fuzz-addon)
