"""`mutable_binary`: a binary built once more with the test switches of core/coordinator/rules.h and server/failpoint.h compiled in.

Everything that it links is compiled with -DBALLAST_MUTATIONS, in output folders of its own: the two kinds never meet in one program.
"""

def _with_mutations(settings, _attr):
    copt = "//command_line_option:copt"
    define = "-DBALLAST_MUTATIONS"
    return {copt: settings[copt] + ([] if define in settings[copt] else [define])}

_mutations = transition(
    implementation = _with_mutations,
    inputs = ["//command_line_option:copt"],
    outputs = ["//command_line_option:copt"],
)

def _mutable_binary(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(output = out, target_file = ctx.executable.binary, is_executable = True)
    runfiles = ctx.attr.binary[0][DefaultInfo].default_runfiles
    return [DefaultInfo(executable = out, files = depset([out]), runfiles = runfiles)]

mutable_binary = rule(
    implementation = _mutable_binary,
    attrs = {
        "binary": attr.label(mandatory = True, executable = True, cfg = _mutations, doc = "the cc_binary"),
        "_allowlist_function_transition": attr.label(default = "@bazel_tools//tools/allowlists/function_transition_allowlist"),
    },
    executable = True,
)
