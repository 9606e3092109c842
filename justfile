# Recipes for working on flopwise. `just` alone lists them.

_default:
    @just --list

# Everything that must pass before a commit.
check:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    cargo test --release
    RUSTDOCFLAGS=-Dwarnings cargo doc --release --workspace --no-deps

# Unit, integration and documentation tests.
test:
    cargo test --release

# Every binary32 through the fast conversions: a minute or two.
long:
    cargo test --release -p flopwise-formats --test it -- --ignored

# Nightly flags; RUSTC_BOOTSTRAP lets the pinned stable compiler take them, so that no second
# toolchain is needed: address sanitizer, and the coverage counters that guide the fuzzer.
fuzz_flags := "-Zsanitizer=address -Cpasses=sancov-module " \
    + "-Cllvm-args=-sanitizer-coverage-level=4 " \
    + "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters " \
    + "-Cllvm-args=-sanitizer-coverage-pc-table " \
    + "-Cllvm-args=-sanitizer-coverage-trace-compares " \
    + "-Ccodegen-units=1 --cfg fuzzing"

# Fuzz one reader, onnx, pt2, tensors, checkpoint or number, for ten minutes (x86-64 Linux).
fuzz TARGET:
    mkdir -p fuzz/corpus/{{TARGET}}
    cd fuzz && RUSTC_BOOTSTRAP=1 RUSTFLAGS="{{fuzz_flags}}" \
        cargo run --release --target x86_64-unknown-linux-gnu --bin {{TARGET}} -- \
        corpus/{{TARGET}} -max_total_time=600

# Export the built-in models again (needs torch, torchvision, transformers, timm); PROGRAMS keeps those made so far.
models PROGRAMS:
    python3 tools/export_models.py
    python3 tools/export_vision.py --programs {{PROGRAMS}}

# Time the library's own hot paths.
bench:
    cargo bench
