"""Repositories that point into the virtual environment that tools/setup makes: libtorch and Google's RPC status protos."""

def _venv(ctx):
    result = ctx.execute([ctx.path(Label("//tools:setup")), "--print-venv"])
    if result.return_code != 0:
        fail("tools/setup --print-venv failed: " + result.stderr)
    venv = ctx.path(result.stdout.strip())
    if not venv.get_child("ready").exists:
        fail("The virtual environment %s is missing or half made. Run tools/setup." % venv)
    return venv

def _site_packages(ctx, package):
    folder = _venv(ctx).get_child("lib").get_child("python3.11").get_child("site-packages").get_child(package)
    if not folder.exists:
        fail("%s is missing. Run tools/setup." % folder)
    return folder

_LIBTORCH_BUILD = """
exports_files(["python"])  # of the virtual environment, for rules that make test data with PyTorch

cc_library(
    name = "torch",
    hdrs = glob(["include/**"]),
    includes = [
        "include",
        "include/torch/csrc/api/include",
    ],
    linkopts = [
        "-L{lib}",
        "-Wl,-rpath,{lib}",
        "-Wl,--no-as-needed",
        "-ltorch_cpu",
        "-ltorch",
        "-lc10",
        "-Wl,--as-needed",
    ],
    visibility = ["//visibility:public"],
)
"""

def _libtorch_impl(ctx):
    torch = _site_packages(ctx, "torch")

    # Only these four: the wheel's include/ also carries old protobuf and fmt headers, which would shadow the system's.
    for folder in ["ATen", "c10", "caffe2", "torch"]:
        ctx.symlink(torch.get_child("include").get_child(folder), "include/" + folder)
    ctx.file("python", "#!/bin/bash\nexec {}/bin/python \"$@\"\n".format(_venv(ctx)), executable = True)
    ctx.file("BUILD", _LIBTORCH_BUILD.format(lib = torch.get_child("lib")))

_GOOGLEAPIS_BUILD = """
exports_files(glob(["google/rpc/*.proto"]))

filegroup(
    name = "rpc_protos",
    srcs = [
        "google/rpc/code.proto",
        "google/rpc/error_details.proto",
        "google/rpc/status.proto",
    ],
    visibility = ["//visibility:public"],
)
"""

def _googleapis_impl(ctx):
    ctx.symlink(_site_packages(ctx, "google").get_child("rpc"), "google/rpc")
    ctx.file("BUILD", _GOOGLEAPIS_BUILD)

_ENVIRON = ["BALLAST_CACHE", "XDG_CACHE_HOME", "HOME"]

# The requirements files are attributes so that a change of them, which moves the virtual environment, fetches these repositories again.
_ATTRS = {
    "_constraints": attr.label(default = "//tools:constraints.txt", allow_single_file = True),
    "_requirements": attr.label(default = "//tools:requirements.txt", allow_single_file = True),
    "_setup": attr.label(default = "//tools:setup", allow_single_file = True),
}

libtorch = repository_rule(implementation = _libtorch_impl, attrs = _ATTRS, environ = _ENVIRON, local = True)
googleapis_protos = repository_rule(implementation = _googleapis_impl, attrs = _ATTRS, environ = _ENVIRON, local = True)
