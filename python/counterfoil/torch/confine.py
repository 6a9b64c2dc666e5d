"""The entry point of the child that runs a prover's recipe; started as a script, by path.

Before anything else is imported the child cuts itself off, as far as the kernel allows without
privileges: namespaces take the network away, Landlock every file but the interpreter's, the
libraries' and its own folder. So a recipe cannot look up the recorded answer. It is no jail: Unix
sockets and file modes are not covered (docs/threat-model.md). Only the standard library is used
here, since a process with threads cannot change its namespaces.
"""

import contextlib
import ctypes
import os
import resource
import struct
import sys

SEES = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system",
)
DEVICES = ("/dev/null", "/dev/urandom")
READ_FILE, READ_FOLDER, WRITE_FILE, NEW_PRIVILEGES = 1 << 2, 1 << 3, 1 << 1, 38
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446


def visible(libraries: list[str]) -> list[str]:
    """The folders a confined child can read, besides its own."""
    return [
        os.path.realpath(path)
        for path in (*SEES, sys.prefix, sys.base_prefix, *libraries)
        if os.path.exists(path)
    ]


def cut_network() -> bool:
    """Leaves the child without network interfaces and without the parent's user namespace."""
    user, network = 0x10000000, 0x40000000
    try:
        return bool(ctypes.CDLL(None, use_errno=True).unshare(user | network) == 0)
    except (AttributeError, OSError):
        return False


def cut_files(libraries: list[str], own: str) -> bool:
    """Lets the child read what `visible` lists and write only below `own`; no program can be started."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        version = library.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    except (AttributeError, OSError):
        return False
    if version < 1:
        return False
    every = (1 << (13 if version < 2 else 14 if version < 3 else 15)) - 1
    handled = struct.pack("=QQQ", every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = library.syscall(CREATE_RULESET, handled, ctypes.c_size_t(size), 0)
    allowed = [(path, READ_FILE | READ_FOLDER) for path in visible(libraries)]
    allowed += [(path, READ_FILE | WRITE_FILE) for path in DEVICES if os.path.exists(path)]
    for path, access in [*allowed, (own, every)]:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        access &= every if os.path.isdir(path) else READ_FILE | WRITE_FILE
        done = library.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", access, folder), 0)
        os.close(folder)
        if done != 0:
            return False
    return bool(
        library.prctl(NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and library.syscall(RESTRICT_SELF, ruleset, 0) == 0
    )


def main(libraries: list[str]) -> None:
    """Confines this process, then serves the parent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
    # Before other places of packages: the package is the one of the process that asks.
    others = [at for at, path in enumerate(sys.path) if path.endswith(("site-packages", "dist-packages"))]
    place = min(others, default=len(sys.path))
    sys.path[place:place] = libraries
    with contextlib.suppress(AttributeError):
        os.umask(0o077)
    cut = {"network": cut_network(), "files": cut_files(libraries, os.getcwd())}
    from counterfoil.torch.child import serve

    serve(cut)


if __name__ == "__main__":
    main(sys.argv[1:])
