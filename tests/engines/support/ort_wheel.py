"""What the installed wheel of ONNX Runtime holds for GPUs, read off its files; no GPU is needed.

The list of its kernels can only be had from the CUDA provider itself, which does not load without the CUDA
libraries and the driver. So it is loaded, in a process of its own, with stubs in their place: libraries with
the functions that it needs, all of which do nothing. Registering kernels calls none of them.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

CAPI = Path(onnxruntime.__file__).with_name("capi")
CUDA = CAPI / "libonnxruntime_providers_cuda.so"
TENSORRT = CAPI / "libonnxruntime_providers_tensorrt.so"


def needed_by(library):
    """The libraries that one needs, and its undefined symbols with the version of each, or None."""
    lines = _output("readelf", "-d", str(library)).splitlines()
    libraries = [re.search(r"\[(.*)\]", line)[1] for line in lines if "(NEEDED)" in line]
    symbols = [
        line.split()[-1].partition("@")
        for line in _output("nm", "-D", "--undefined-only", str(library)).splitlines()
    ]
    return libraries, [(name, version.lstrip("@") or None) for name, _, version in symbols]


def nvidia_libraries(library):
    """Those of the libraries that come from NVIDIA."""
    return sorted(each for each in needed_by(library)[0] if re.match(r"lib(cu|nv)", each))


def cuda_kernels(directory):
    """The kernels of the CUDA provider: (operator, domain, first opset, last opset, types by constraint).

    Args:
        directory: for the stubs.
    """
    skip_without_tools()
    _make_stubs([CUDA, TENSORRT], directory)
    environment = os.environ | {"LD_LIBRARY_PATH": str(directory)}
    script = [sys.executable, __file__]
    printed = subprocess.run(
        script, env=environment, check=True, capture_output=True, encoding="utf-8"
    ).stdout
    return [tuple(kernel) for kernel in json.loads(printed)]


def skip_without_tools():
    if not CUDA.exists():
        pytest.skip("this build of ONNX Runtime has no CUDA provider")
    if platform.system() != "Linux" or not all(map(shutil.which, ("gcc", "nm", "readelf"))):
        pytest.skip("needs Linux, gcc and binutils")


def _make_stubs(libraries, directory):
    wanted = {}
    for library in libraries:
        _, symbols = needed_by(library)
        for each in nvidia_libraries(library):
            wanted.setdefault(each, set())
        for name, version in symbols:
            if version in wanted:
                wanted[version].add(name)
            elif version is None and re.match(r"cu[A-Z]", name):
                wanted["libcuda.so.1"].add(name)
            elif version is None and re.match(r"create|get[IP]", name):
                wanted["libnvinfer.so.10"].add(name)
    for name, functions in wanted.items():
        source, versions = directory / "stub.c", directory / "stub.map"
        source.write_text(
            "static long nothing[64];\n" + "".join(map(_stub, sorted(functions))), encoding="utf-8"
        )
        versions.write_text(f"{name} {{ global: *; }};\n", encoding="utf-8")
        named = [] if name in {"libcuda.so.1", "libnvinfer.so.10"} else [f"-Wl,--version-script={versions}"]
        options = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", *named]
        subprocess.run(["gcc", *options, "-o", str(directory / name), str(source)], check=True)


def _stub(function):
    """Registering code gives a handle; all else succeeds."""
    return f"long {function}() {{ return {'(long)nothing' if 'Register' in function else '0'}; }}\n"


def _output(*command):
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout


def _print_kernels():
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415

    kernels = [
        (each.op_name, each.domain, *each.version_range, each.type_constraints)
        for each in state.get_all_opkernel_def()
        if each.provider == "CUDAExecutionProvider"
    ]
    print(json.dumps(kernels))
    sys.stdout.flush()
    os._exit(0)  # what the stubs gave is no handle, and is not to be given back


if __name__ == "__main__":
    _print_kernels()
