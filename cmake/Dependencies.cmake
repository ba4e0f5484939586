# Everything from outside. Arrow and libtorch lie inside the wheels of .venv (./dev setup makes it);
# the rest are the distribution's packages. docs/dependencies.md says why each is here.

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(simdjson REQUIRED)
find_package(CLI11 REQUIRED)
find_package(ZLIB REQUIRED)
find_package(Boost 1.81 REQUIRED)

# name of a header-only or static library without a CMake package of its own
function(lorry_find_library name header library)
  find_path(${name}_INCLUDE ${header} REQUIRED)
  find_library(${name}_LIBRARY ${library} REQUIRED)
  add_library(lorry::${name} INTERFACE IMPORTED)
  target_include_directories(lorry::${name} INTERFACE ${${name}_INCLUDE})
  target_link_libraries(lorry::${name} INTERFACE ${${name}_LIBRARY})
endfunction()
lorry_find_library(utf8proc utf8proc.h libutf8proc.a)
lorry_find_library(zstd zstd.h libzstd.a)
lorry_find_library(yaml yaml.h libyaml.a)
lorry_find_library(lzma lzma.h liblzma.a)

# Headers only: src/net loads the library when it is needed.
find_path(CURL_INCLUDE curl/curl.h REQUIRED)
add_library(lorry::curl INTERFACE IMPORTED)
target_include_directories(lorry::curl SYSTEM INTERFACE ${CURL_INCLUDE})
target_link_libraries(lorry::curl INTERFACE ${CMAKE_DL_LIBS})

set(LORRY_VENV ${PROJECT_SOURCE_DIR}/.venv CACHE PATH "where the pyarrow and torch wheels are installed")
file(GLOB LORRY_SITE_PACKAGES ${LORRY_VENV}/lib/python3*/site-packages)
if(NOT LORRY_SITE_PACKAGES)
  message(FATAL_ERROR "no wheels in ${LORRY_VENV}; run ./dev setup")
endif()

set(ARROW_DIR ${LORRY_SITE_PACKAGES}/pyarrow)
file(GLOB ARROW_LIBRARY ${ARROW_DIR}/libarrow.so.*)
file(GLOB PARQUET_LIBRARY ${ARROW_DIR}/libparquet.so.*)
if(NOT ARROW_LIBRARY OR NOT PARQUET_LIBRARY)
  message(FATAL_ERROR "no Arrow libraries in ${ARROW_DIR}; run ./dev setup")
endif()
add_library(lorry::arrow INTERFACE IMPORTED)
target_include_directories(lorry::arrow SYSTEM INTERFACE ${ARROW_DIR}/include)
target_link_libraries(lorry::arrow INTERFACE ${ARROW_LIBRARY})
target_link_options(lorry::arrow INTERFACE -Wl,-rpath,${ARROW_DIR})
add_library(lorry::parquet INTERFACE IMPORTED)
target_link_libraries(lorry::parquet INTERFACE lorry::arrow ${PARQUET_LIBRARY})

# libtorch_cpu and libc10 only: libtorch_cuda is loaded at run time where there is one, so that one
# build serves every CUDA version of the same libtorch release.
set(TORCH_DIR ${LORRY_SITE_PACKAGES}/torch)
add_library(lorry::torch INTERFACE IMPORTED)
# After the system's folders: the wheel carries headers of other libraries too (another fmt).
target_compile_options(lorry::torch INTERFACE
  "SHELL:-idirafter ${TORCH_DIR}/include" "SHELL:-idirafter ${TORCH_DIR}/include/torch/csrc/api/include")
target_link_libraries(lorry::torch INTERFACE ${TORCH_DIR}/lib/libtorch_cpu.so ${TORCH_DIR}/lib/libc10.so)
target_link_options(lorry::torch INTERFACE
  -Wl,-rpath,${TORCH_DIR}/lib -Wl,--unresolved-symbols=ignore-in-shared-libs)
target_compile_options(lorry::torch INTERFACE -Wno-attributes)
# at::parallel_for is a header: without OpenMP in the file that calls it, it is a plain loop. libtorch
# brings the libgomp that its own threads come from; there must be no second one.
target_compile_options(lorry::torch INTERFACE -fopenmp)
target_link_libraries(lorry::torch INTERFACE ${TORCH_DIR}/lib/libgomp.so.1)

if(LORRY_TESTS)
  find_package(GTest REQUIRED)
endif()
