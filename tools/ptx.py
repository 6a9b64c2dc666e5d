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
MOST_REGISTERS = 64
# Instructions of the loop over a message's blocks: longer code leaves the instruction caches. The loop nested
# in it, which only unaligned tensors enter, is not counted.
LONGEST_LOOP = 1450


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


def machine_code(ptx: Path, architecture: str) -> tuple[int, int, int]:
    """The most registers and spilled bytes of a kernel, and instructions of a compression loop."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        command = [wheel("cuda_nvcc/bin/ptxas"), "-v", f"-arch={architecture}", ptx, "-o", cubin]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        command = [wheel("cu13/bin/nvdisasm"), "-c", cubin]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers = max(map(int, re.findall(r"Used (\d+) registers", report)))
    spilled = max(map(int, re.findall(r"(\d+) bytes spill", report)))
    kernels = re.split(r"^\s*\.section\s+\.text", listing, flags=re.MULTILINE)[1:]
    return registers, spilled, max(map(loop, kernels))


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
    first, behind = min(
        (each for each in loops if each[1] - each[0] > 1000), key=lambda each: each[1] - each[0]
    )
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
            registers, spilled, loop = machine_code(ptx, architecture)
            print(
                f"{ptx.name} {architecture}: {registers} registers, {spilled} bytes spilled, loop of {loop}"
            )
            if registers > MOST_REGISTERS or spilled or loop > LONGEST_LOOP:
                sys.exit(f"the limits are {MOST_REGISTERS} registers, no spills, a loop of {LONGEST_LOOP}")


if __name__ == "__main__":
    main(sys.argv[1])
