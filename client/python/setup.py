"""Builds the package `ballast`: its version is the repository's, its protocol stubs are generated from the repository's proto/.

Everything else is in pyproject.toml. Stubs come from protoc and grpc_python_plugin (Debian: protobuf-compiler, protobuf-compiler-grpc): they
run with every protobuf runtime from 4.21 on. A source distribution carries the stubs and the version that it was made with.
"""

import pathlib
import shutil
import subprocess

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROTOS = ["run", "control", "shard", "worker"]


def version() -> str:
    in_tree = ROOT / "VERSION"
    if in_tree.is_file():
        return in_tree.read_text().strip()
    info = (HERE / "PKG-INFO").read_text()
    return next(line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("Version:"))


def generate_stubs() -> None:
    out = HERE / "ballast" / "v1"
    protos = ROOT / "proto"
    if not (protos / "ballast" / "v1").is_dir() or all((out / f"{name}_pb2.py").is_file() for name in PROTOS):
        return
    plugin = shutil.which("grpc_python_plugin")
    if plugin is None or shutil.which("protoc") is None:
        raise SystemExit("building ballast needs protoc and grpc_python_plugin (Debian: protobuf-compiler protobuf-compiler-grpc)")
    out.mkdir(exist_ok=True)
    files = [str(protos / "ballast" / "v1" / f"{name}.proto") for name in PROTOS]
    subprocess.run(
        ["protoc", f"-I{protos}", f"--python_out={HERE}", f"--grpc_python_out={HERE}", f"--plugin=protoc-gen-grpc_python={plugin}", *files], check=True
    )
    (out / "__init__.py").write_text('"""Generated from proto/ballast/v1."""\n')


class BuildWithStubs(build_py):
    def run(self) -> None:
        generate_stubs()
        super().run()


setup(version=version(), cmdclass={"build_py": BuildWithStubs})
