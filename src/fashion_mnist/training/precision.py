"""Which arithmetic is faster here: float32 or bfloat16?"""

import re
from pathlib import Path

from fashion_mnist.startup import CPUINFO, cpuinfo


def faster_precision(file: Path = CPUINFO) -> str:
    """`bfloat16` where the processor says that it multiplies it, else `float32`.

    Where TensorFlow must imitate bfloat16, convolutions take many times as long as in float32.
    """
    known = re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpuinfo(file))
    return "bfloat16" if known else "float32"
