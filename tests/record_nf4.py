"""Prints the digests of bitsandbytes' NF4 numbers that src/ops/nf4_test.cc and test_base_format.py hold.

    python -m pip install bitsandbytes==0.50.2; python tests/record_nf4.py
"""

import hashlib

import torch

ROWS, COLUMNS = 160, 448
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def matrix():
    """Numbers of many sizes that every language makes alike: a block of zeros, and scales of 2^-7 to 2^4."""
    i = torch.arange(ROWS * COLUMNS, dtype=torch.int64)
    value = (i * i * 7919 + i * 104729) % 20011 - 10005
    value = value.double() / 65536 * 2.0 ** (i // 64 % 12 - 7)
    value[128:192] = 0
    return value.float().view(ROWS, COLUMNS)


def digest(tensor):
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def bitsandbytes_nf4(weight):
    """What bitsandbytes makes of a weight with double quantisation, in the weight's dtype."""
    from bitsandbytes import functional

    data, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    return functional.dequantize_4bit(data, state)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for dtype in DTYPES:
        print(dtype, digest(bitsandbytes_nf4(matrix().to(dtype))))
