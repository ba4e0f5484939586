# liblorry_cuda.so (cuda_module.h): what needs libtorch_cuda, and the kernels. A kernel is a line with
# its .cu file, and one with the .cc that launches it both in the module and in the tests.
set(LORRY_LAUNCHERS
  cross_entropy_cuda.cc
  dequantize_cuda.cc
  gate_cuda.cc
  norm_rope_cuda.cc
  paged_attention_cuda.cc
  residual_rms_norm_cuda.cc
  rope_cuda.cc)
if(LORRY_NVCC)
  add_library(lorry_cuda_launchers OBJECT ${LORRY_LAUNCHERS})
  target_include_directories(lorry_cuda_launchers PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(lorry_cuda_launchers PRIVATE lorry::torch)
  set_target_properties(lorry_cuda_launchers PROPERTIES
    CXX_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)
  add_library(lorry_cuda MODULE
    cuda_driver.cc
    cuda_graph.cc
    cuda_module_entry.cc
    cuda_sum.cc
    $<TARGET_OBJECTS:lorry_cuda_launchers>)
  lorry_cuda_kernels(lorry_cuda cross_entropy cross_entropy_cuda.cu)
  lorry_cuda_kernels(lorry_cuda dequantize dequantize_cuda.cu)
  lorry_cuda_kernels(lorry_cuda gate gate_cuda.cu)
  lorry_cuda_kernels(lorry_cuda norm_rope norm_rope_cuda.cu)
  lorry_cuda_kernels(lorry_cuda paged_attention paged_attention_cuda.cu)
  lorry_cuda_kernels(lorry_cuda residual_rms_norm residual_rms_norm_cuda.cu)
  lorry_cuda_kernels(lorry_cuda rope rope_cuda.cu)
  target_include_directories(lorry_cuda PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_include_directories(lorry_cuda SYSTEM PRIVATE ${LORRY_CUDA_INCLUDE})
  target_link_libraries(lorry_cuda PRIVATE
    ${TORCH_DIR}/lib/libtorch_cuda.so ${TORCH_DIR}/lib/libc10_cuda.so lorry::torch)
  set_target_properties(lorry_cuda PROPERTIES CXX_VISIBILITY_PRESET hidden)
else()
  file(REMOVE ${CMAKE_BINARY_DIR}/liblorry_cuda.so)  # of an earlier build, which nobody would renew
endif()

if(LORRY_TESTS)
  # Modules that cuda_module_test.cc sees refused.
  function(lorry_wrong_module name)
    add_library(lorry_${name} MODULE wrong_module.cc)
    target_include_directories(lorry_${name} PRIVATE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(lorry_${name} PRIVATE lorry::torch)
    target_compile_definitions(lorry_${name} PRIVATE ${ARGN})
    add_dependencies(lorry_ops_test lorry_${name})
  endfunction()
  lorry_wrong_module(wrong_version "WRONG_VERSION=\"0.0.0\"")
  lorry_wrong_module(wrong_torch WRONG_TORCH=1)
  lorry_wrong_module(wrong_size WRONG_SIZE=8)
  lorry_wrong_module(no_module lorry_cuda_module=another_symbol)
endif()
# Sanitizers do not follow the fibers on which the kernels run there.
if(LORRY_TESTS AND LORRY_NVCC AND NOT LORRY_SANITIZE)
  add_dependencies(lorry_ops_test lorry_cuda)
  # The kernels once more, compiled for the host (cuda_on_host.h) and found by name.
  target_sources(lorry_ops_test PRIVATE cuda_on_host.cc $<TARGET_OBJECTS:lorry_cuda_launchers>)
  target_include_directories(lorry_ops_test SYSTEM PRIVATE ${LORRY_CUDA_INCLUDE})
  target_compile_definitions(lorry_ops_test PRIVATE LORRY_CUDA_ON_HOST)
  target_compile_options(lorry_ops_test PRIVATE -Wno-unknown-pragmas)  # unroll
  set_target_properties(lorry_ops_test PROPERTIES ENABLE_EXPORTS ON)
endif()
