"""An aspect that checks lock annotations with clang's thread safety analysis: `bazel build --config=thread-safety //...`.

Each source file is an action of its own, with the include paths of its target, so that only what changed is checked again.
"""

_EXTENSIONS = ["cc"]

def _flags(ctx, target):
    context = target[CcInfo].compilation_context
    flags = ["-D" + name for name in context.defines.to_list() + context.local_defines.to_list()]
    for option, folders in [("-iquote", context.quote_includes), ("-I", context.includes), ("-isystem", context.system_includes)]:
        for folder in folders.to_list():
            flags += [option, folder]
    return flags + ctx.rule.attr.copts

def _impl(target, ctx):
    if CcInfo not in target or not hasattr(ctx.rule.attr, "srcs") or not hasattr(ctx.rule.attr, "copts"):
        return []
    flags = _flags(ctx, target)
    headers = target[CcInfo].compilation_context.headers
    stamps = []
    for source in [file for attr in ctx.rule.attr.srcs for file in attr.files.to_list()]:
        if not source.is_source or source.extension not in _EXTENSIONS or source.owner.package == "third_party":
            continue
        stamp = ctx.actions.declare_file("%s.%s.thread_safety" % (target.label.name, source.basename))
        ctx.actions.run(
            executable = ctx.executable._check,
            arguments = [stamp.path, source.path] + flags,
            inputs = depset([source], transitive = [headers] + [attr.files for attr in ctx.rule.attr.srcs]),
            outputs = [stamp],
            mnemonic = "ThreadSafety",
            progress_message = "Checking the locks of " + source.short_path,
            use_default_shell_env = True,
        )
        stamps.append(stamp)
    return [OutputGroupInfo(thread_safety = depset(stamps))]

thread_safety = aspect(
    implementation = _impl,
    attrs = {"_check": attr.label(default = "//tools/thread_safety:check", executable = True, cfg = "host", allow_single_file = True)},
)
