"""A fuzz target in its two forms: a test of the kept corpus with any compiler, and a libFuzzer program for tools/fuzz."""

def fuzz_target(name, deps, size = "small"):
    """NAME_fuzz.cc as NAME_test (corpus/NAME, then 5 s of mutations) and NAME_fuzz (libFuzzer; only with --config=fuzz)."""
    srcs = [name + "_fuzz.cc"]
    deps = deps + [":input"]
    native.cc_test(
        name = name + "_test",
        size = size,
        srcs = srcs + ["driver.cc"],
        args = ["tests/fuzz/corpus/" + name],
        data = native.glob(["corpus/" + name + "/*"]),
        deps = deps,
    )
    native.cc_binary(
        name = name + "_fuzz",
        testonly = True,
        srcs = srcs,
        linkopts = ["-fsanitize=fuzzer"],
        tags = ["manual"],
        deps = deps,
    )
