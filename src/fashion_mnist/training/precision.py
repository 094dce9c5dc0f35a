"""Which arithmetic is faster here: float32 or bfloat16?"""

import re
from pathlib import Path

FLAGS = Path("/proc/cpuinfo")  # of Linux; elsewhere it cannot be told


def faster_precision(flags: Path = FLAGS) -> str:
    """`bfloat16` where the processor says that it multiplies it, else `float32`.

    Where TensorFlow must imitate bfloat16, convolutions take many times as long as in float32.
    """
    known = flags.is_file() and re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags.read_text())
    return "bfloat16" if known else "float32"
