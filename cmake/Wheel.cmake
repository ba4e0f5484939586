# The program and the engine as the wheel carries them: the objects of the ordinary build, linked
# once more. Arrow and libtorch are found in the packages beside them in site-packages.

set(LORRY_WHEEL_OUT ${CMAKE_BINARY_DIR}/wheel)

# lorry_wheel_target(TARGET OUTPUT_NAME): what both have in common.
function(lorry_wheel_target target)
  set_target_properties(${target} PROPERTIES EXCLUDE_FROM_ALL ON LINKER_LANGUAGE CXX
    RUNTIME_OUTPUT_DIRECTORY ${LORRY_WHEEL_OUT} LIBRARY_OUTPUT_DIRECTORY ${LORRY_WHEEL_OUT}
    BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN/../pyarrow:$ORIGIN/../torch/lib")
  # RPATH, not RUNPATH: LD_LIBRARY_PATH of an image must not bring in another libtorch.
  target_link_options(${target} PRIVATE -s -Wl,--disable-new-dtags)
endfunction()

function(lorry_wheel_objects out)
  set(objects)
  foreach(target ${ARGN})
    list(APPEND objects $<TARGET_OBJECTS:${target}>)
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

lorry_wheel_objects(objects lorry lorry_base lorry_net lorry_store lorry_hub lorry_data lorry_text lorry_pipeline)
add_executable(wheel_program ${objects})
set_target_properties(wheel_program PROPERTIES OUTPUT_NAME lorry ENABLE_EXPORTS ON)
lorry_wheel_target(wheel_program)
target_link_libraries(wheel_program PRIVATE fmt::fmt spdlog::spdlog simdjson::simdjson ZLIB::ZLIB
  ${zstd_LIBRARY} ${yaml_LIBRARY} ${utf8proc_LIBRARY} ${ARROW_LIBRARY} ${PARQUET_LIBRARY} dl Threads::Threads)

lorry_wheel_objects(objects lorry_engine lorry_model lorry_train lorry_serve)
add_library(wheel_engine MODULE ${objects})
set_target_properties(wheel_engine PROPERTIES OUTPUT_NAME lorry_engine)
lorry_wheel_target(wheel_engine)
target_link_libraries(wheel_engine PRIVATE wheel_program fmt::fmt ${ARROW_LIBRARY}
  ${TORCH_DIR}/lib/libtorch_cpu.so ${TORCH_DIR}/lib/libc10.so)
target_link_options(wheel_engine PRIVATE -Wl,--unresolved-symbols=ignore-in-shared-libs)
