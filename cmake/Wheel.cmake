# The program and the engine as the wheel carries them: the objects of the ordinary build, linked
# once more, so that they run on any Linux with glibc 2.28 and GCC 8's libstdc++ or newer
# (manylinux_2_28). Arrow and libtorch are found in the packages beside them in site-packages; all
# else is linked in and hidden. packaging/README.md says how.
set(LORRY_WHEEL_PARTS "" CACHE PATH "what packaging/parts.sh has made; none: no wheel")
if(NOT EXISTS "${LORRY_WHEEL_PARTS}/glibc/Scrt1.o")
  return()
endif()

function(lorry_compiler_file out name)
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=${name} OUTPUT_VARIABLE path
    OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(${out} ${path} PARENT_SCOPE)
endfunction()

function(lorry_wheel_objects out)
  set(objects)
  foreach(target ${ARGN})
    list(APPEND objects $<TARGET_OBJECTS:${target}>)
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

set(GLIBC ${LORRY_WHEEL_PARTS}/glibc)
foreach(file crtbeginS.o crtendS.o libstdc++.a libstdc++_pic.a libgcc.a)
  lorry_compiler_file(GCC_${file} ${file})
endforeach()
lorry_compiler_file(GCC_libgcc_s libgcc_s.so.1)

# lorry_wheel_target(TARGET LIBRARIES...): links with nothing but what is named here. libstdc++.a
# comes after the shared one and gives what GCC 8 did not have.
function(lorry_wheel_target target)
  set_target_properties(${target} PROPERTIES EXCLUDE_FROM_ALL ON LINKER_LANGUAGE CXX
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/wheel LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/wheel
    BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN/../pyarrow:$ORIGIN/../torch/lib")
  # RPATH, not RUNPATH: LD_LIBRARY_PATH of an image must not bring in another libtorch.
  target_link_options(${target} PRIVATE -nostdlib -s LINKER:--disable-new-dtags LINKER:--gc-sections
    LINKER:--exclude-libs,ALL LINKER:--unresolved-symbols=ignore-in-shared-libs)
  target_link_libraries(${target} PRIVATE ${ARGN} ${LORRY_WHEEL_PARTS}/libstdc++.so ${GCC_libstdc++_pic.a}
    ${GLIBC}/libm.so.6 ${GLIBC}/libpthread.so.0 ${GLIBC}/libdl.so.2 ${GLIBC}/libc.so.6 ${GLIBC}/libld.so.2
    ${GLIBC}/libc_nonshared.a ${GCC_libgcc_s} ${GCC_libgcc.a} ${GCC_crtendS.o})
endfunction()

add_library(wheel_compat OBJECT EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/packaging/compat.cc)
add_library(wheel_curl OBJECT EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/src/net/curl_linked.cc)
target_include_directories(wheel_curl PRIVATE ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(wheel_curl PRIVATE lorry::curl)

lorry_wheel_objects(objects lorry lorry_base lorry_net lorry_store lorry_hub lorry_data
  lorry_jinja lorry_tokenizer lorry_chat lorry_engine_loader lorry_train_options lorry_sources lorry_stages
  lorry_inspect
  wheel_compat wheel_curl)
add_executable(wheel_program ${GLIBC}/Scrt1.o ${GCC_crtbeginS.o} ${objects})
set_target_properties(wheel_program PROPERTIES OUTPUT_NAME lorry ENABLE_EXPORTS ON)
find_library(ssl_LIBRARY libssl.a REQUIRED)
find_library(crypto_LIBRARY libcrypto.a REQUIRED)
find_library(z_LIBRARY libz.a REQUIRED)
lorry_wheel_target(wheel_program
  ${LORRY_WHEEL_PARTS}/libspdlog.a ${LORRY_WHEEL_PARTS}/libfmt.a ${LORRY_WHEEL_PARTS}/libsimdjson.a
  ${LORRY_WHEEL_PARTS}/libcurl.a ${ssl_LIBRARY} ${crypto_LIBRARY} ${z_LIBRARY}
  ${zstd_LIBRARY} ${lzma_LIBRARY} ${yaml_LIBRARY} ${utf8proc_LIBRARY} ${ARROW_LIBRARY} ${PARQUET_LIBRARY})
target_link_options(wheel_program PRIVATE -pie LINKER:--no-undefined)

lorry_wheel_objects(objects lorry_engine lorry_ops lorry_model lorry_generate lorry_train lorry_serve wheel_compat)
add_library(wheel_engine MODULE ${GCC_crtbeginS.o} ${objects})
set_target_properties(wheel_engine PROPERTIES OUTPUT_NAME lorry_engine)
lorry_wheel_target(wheel_engine wheel_program ${LORRY_WHEEL_PARTS}/libfmt.a ${ARROW_LIBRARY}
  ${TORCH_DIR}/lib/libtorch_cpu.so ${TORCH_DIR}/lib/libc10.so ${TORCH_DIR}/lib/libgomp.so.1)

# Without a CUDA compiler there is no module (cmake/Cuda.cmake); an old one must not stay behind.
add_custom_target(wheel_parts DEPENDS wheel_program wheel_engine)
if(TARGET lorry_cuda)
  lorry_wheel_objects(objects lorry_cuda lorry_cuda_launchers wheel_compat)
  add_library(wheel_cuda MODULE ${GCC_crtbeginS.o} ${objects})
  set_target_properties(wheel_cuda PROPERTIES OUTPUT_NAME lorry_cuda)
  lorry_wheel_target(wheel_cuda ${TORCH_DIR}/lib/libtorch_cuda.so ${TORCH_DIR}/lib/libc10_cuda.so
    ${TORCH_DIR}/lib/libtorch_cpu.so ${TORCH_DIR}/lib/libc10.so)
  add_dependencies(wheel_parts wheel_cuda)
else()
  file(REMOVE ${CMAKE_BINARY_DIR}/wheel/liblorry_cuda.so)
endif()
set_source_files_properties(${GLIBC}/Scrt1.o ${GCC_crtbeginS.o} PROPERTIES EXTERNAL_OBJECT ON)
