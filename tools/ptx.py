# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "nvidia-cuda-nvrtc-cu11==11.8.89",
#     "nvidia-cuda-nvcc-cu12==12.9.86",
#     "nvidia-cuda-nvdisasm==13.5.37",
# ]
# ///
"""Compiles CUDA sources to the PTX that is committed beside them, and checks what it becomes.

`build` writes the PTX. `check` compiles anew and compares, then assembles the kernel for each
architecture and reads the machine code. Needs no GPU and no CUDA toolkit: the compiler, the
assembler and the disassembler come from NVIDIA's wheels. NVRTC 11.8 writes PTX 7.8, which drivers
from 520 on load; later compilers write versions that these drivers refuse.
"""

import ctypes
import hashlib
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = (ROOT / "src/commit/cuda/reduce.cu", ROOT / "benches/gpu/ceiling.cu")
OPTIONS = ("--gpu-architecture=compute_75", "--std=c++17")
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
# The most that a kernel may use. Four blocks of 256 threads share the registers and the memory of a
# multiprocessor. The stack is the copy of a message's last blocks: more would be an array that left the
# registers. Of the loop over a message's blocks, which is to stay in the instruction caches, the loop nested
# in it is not counted: only unaligned tensors enter it.
LIMITS = {"registers": 64, "bytes spilled": 0, "bytes of stack": 128, "shared bytes": 12288, "loop": 1450}


def wheel(path: str) -> Path:
    """A file of NVIDIA's wheels, which share a folder."""
    folder = find_spec("nvidia").submodule_search_locations[0]
    return Path(folder) / path


def compiled(source: Path) -> bytes:
    """The PTX of a source, with a first line that names it and its hash."""
    ctypes.CDLL(str(wheel("cuda_nvrtc/lib/libnvrtc-builtins.so.11.8")), ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(wheel("cuda_nvrtc/lib/libnvrtc.so.11.2")))
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    program = ctypes.c_void_p()

    def read(what: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{what}")(program, text)
        return text.value

    text = flattened(source)
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, source.name.encode(), 0, None, None)
    options = (ctypes.c_char_p * len(OPTIONS))(*(option.encode() for option in OPTIONS))
    failed = nvrtc.nvrtcCompileProgram(program, len(OPTIONS), options)
    if failed or read("ProgramLog").strip():
        sys.exit(f"{source}: {nvrtc.nvrtcGetErrorString(failed).decode()}\n{read('ProgramLog').decode()}")
    head = f"// {source.name} sha256:{hashlib.sha256(text).hexdigest()} NVRTC 11.8.89 {' '.join(OPTIONS)}\n"
    return head.encode() + read("PTX").rstrip() + b"\n"


def flattened(source: Path) -> bytes:
    """The source with the files that it includes."""

    def included(match: re.Match[bytes]) -> bytes:
        return flattened(source.parent / match[1].decode())

    return re.sub(rb'^#include "(.*)"$', included, source.read_bytes(), flags=re.MULTILINE)


def machine_code(ptx: Path, architecture: str) -> dict[str, dict[str, int]]:
    """What each kernel uses, in the units of `LIMITS`."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        command = [wheel("cuda_nvcc/bin/ptxas"), "-v", f"-arch={architecture}", ptx, "-o", cubin]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        command = [wheel("cu13/bin/nvdisasm"), "-c", cubin]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def most(pattern: str, text: str) -> int:
        return max(map(int, re.findall(pattern, text)), default=0)

    kernels = {}
    for part in report.split("Compiling entry function '")[1:]:
        name = part.split("'")[0]
        (code,) = re.findall(
            rf"\.section\s+\.text\.{name},(.*?)(?=\n\s*\.section\s|\Z)", listing, flags=re.DOTALL
        )
        kernels[name] = {
            "registers": most(r"Used (\d+) registers", part),
            "bytes spilled": most(r"(\d+) bytes spill", part),
            "bytes of stack": most(r"(\d+) bytes stack", part),
            "shared bytes": most(r"(\d+) bytes smem", part),
            "loop": loop(code),
        }
    return kernels


def loop(listing: str) -> int:
    """Instructions of the shortest loop that holds a compression, without the loops nested in it."""
    labels: dict[str, int] = {}
    loops = []
    place = 0
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_\w+):", line):
            labels[label[1]] = place
        elif re.match(r"\s*/\*[0-9a-f]{4,}\*/", line):
            place += 1
            target = re.search(r"\bBRA\b.*?(\.L_\w+)", line)
            if target and target[1] in labels:
                loops.append((labels[target[1]], place))
    whole = [each for each in loops if each[1] - each[0] > 1000]
    if not whole:
        sys.exit("no loop holds a whole compression: its rounds are rolled up, or called")
    first, behind = min(whole, key=lambda each: each[1] - each[0])
    nested = sum(end - start for start, end in loops if first < start and end < behind)
    return behind - first - nested


def main(command: str) -> None:
    """Runs `build` or `check`."""
    for source in SOURCES:
        ptx = source.with_suffix(".ptx")
        text = compiled(source)
        if command == "build":
            ptx.write_bytes(text)
        elif ptx.read_bytes() != text:
            sys.exit(f"{ptx} is not what {source.name} compiles to: run make ptx")
        for architecture in ARCHITECTURES:
            for kernel, used in machine_code(ptx, architecture).items():
                print(
                    f"{kernel} {architecture}: {', '.join(f'{value} {what}' for what, value in used.items())}"
                )
                for what, limit in LIMITS.items():
                    if used[what] > limit:
                        sys.exit(f"{kernel} on {architecture} uses {used[what]} {what}, the limit is {limit}")


if __name__ == "__main__":
    main(sys.argv[1])
