# The CUDA compiler of .venv-cuda (./dev setup makes it) and how kernels are embedded. Where it cannot
# run, LORRY_NVCC is empty, one line says why, and all else builds: operations then run on a GPU in
# libtorch's own kernels.
option(LORRY_CUDA "build liblorry_cuda.so: CUDA kernels, graphs" ON)
set(LORRY_CUDA_VENV ${PROJECT_SOURCE_DIR}/.venv-cuda CACHE PATH
  "where cmake/cuda-requirements.txt is installed")
set(LORRY_CUDA_ARCHITECTURES 75 80 86 89 90a 100a 120 CACHE STRING
  "compute capabilities that kernels are compiled for")

# Sets LORRY_NVCC and LORRY_CUDA_INCLUDE, or WITHOUT_CUDA to the reason why not.
function(lorry_find_nvcc)
  set(LORRY_NVCC "" PARENT_SCOPE)
  if(NOT LORRY_CUDA)
    set(WITHOUT_CUDA "LORRY_CUDA is off" PARENT_SCOPE)
    return()
  endif()
  file(GLOB root ${LORRY_CUDA_VENV}/lib/python3*/site-packages/nvidia/cu13)
  if(NOT EXISTS "${root}/bin/nvcc")
    set(WITHOUT_CUDA "no nvcc in ${LORRY_CUDA_VENV}; run ./dev setup" PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${root}/bin/nvcc --version RESULT_VARIABLE failed OUTPUT_QUIET ERROR_VARIABLE why)
  if(failed)
    string(STRIP "${why}" why)
    set(WITHOUT_CUDA "${root}/bin/nvcc does not run (${failed}) ${why}" PARENT_SCOPE)
    return()
  endif()
  if(NOT EXISTS ${TORCH_DIR}/lib/libtorch_cuda.so)
    set(WITHOUT_CUDA "the libtorch in ${TORCH_DIR} has no CUDA part" PARENT_SCOPE)
    return()
  endif()
  set(LORRY_NVCC ${root}/bin/nvcc PARENT_SCOPE)
  set(LORRY_CUDA_INCLUDE ${root}/include PARENT_SCOPE)
endfunction()

set(WITHOUT_CUDA "")
lorry_find_nvcc()
if(WITHOUT_CUDA)
  message(NOTICE "building without CUDA kernels: ${WITHOUT_CUDA}")
endif()

# lorry_cuda_kernels(TARGET NAME KERNELS.cu): the code of a file of kernels for all architectures, in
# TARGET as `lorry_fatbin_NAME`.
#
# An object is compiled and the fatbin taken out of it, instead of `nvcc -fatbin`: the bytes are the
# same, and ccache knows objects only. No launch goes through the object's host half (ops/cuda_driver.h).
function(lorry_cuda_kernels target name kernels)
  set(gencode)
  foreach(architecture ${LORRY_CUDA_ARCHITECTURES})
    list(APPEND gencode -gencode arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  set(base ${CMAKE_CURRENT_BINARY_DIR}/${name})
  add_custom_command(OUTPUT ${base}.fatbin
    COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${LORRY_NVCC} -std=c++20 -O3 --compress-mode=size ${gencode}
      -I${PROJECT_SOURCE_DIR}/src -MD -MT ${base}.fatbin -MF ${base}.d
      -c ${CMAKE_CURRENT_SOURCE_DIR}/${kernels} -o ${base}.o
    COMMAND ${CMAKE_OBJCOPY} -O binary --only-section=.nv_fatbin ${base}.o ${base}.fatbin
    DEPENDS ${kernels} DEPFILE ${base}.d COMMENT "Compiling ${kernels}" VERBATIM)
  # The bytes are included by the assembler; 64: what the driver's own loader aligns to.
  file(CONFIGURE OUTPUT ${base}_fatbin.cc @ONLY CONTENT [=[
asm(R"(
  .section .rodata
  .balign 64
  .globl lorry_fatbin_@name@
  .hidden lorry_fatbin_@name@
lorry_fatbin_@name@:
  .incbin "@base@.fatbin"
  .balign 8
  .previous
)");
]=])
  set_source_files_properties(${base}_fatbin.cc PROPERTIES OBJECT_DEPENDS ${base}.fatbin)
  target_sources(${target} PRIVATE ${base}_fatbin.cc)
endfunction()
