# Recipes for https://just.systems; every one is a plain command that can be typed instead.

# What there is to do.
default:
    @just --list

# Everything a change must pass.
ci:
    .ci/run

# Format the code.
fmt:
    cargo fmt

# What the compiler and clippy have to say.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# All tests, or those whose name holds FILTER.
test FILTER="":
    cargo test {{FILTER}}

# The tests against recorded numbers of the reference implementation; FIXTURES may be another folder of cases.
reference FIXTURES="":
    {{ if FIXTURES == "" { "" } else { "SPDFLOW_FIXTURES=" + absolute_path(FIXTURES) } }} cargo test -p spdflow-stages --test reference

# The main job.
tms *ARGS:
    cargo run --release -- run pipelines/tms.toml {{ARGS}}

# The same in a few seconds.
smoke:
    cargo run --release -- run pipelines/tms.toml --profile smoke

# Steps of decomposition per second.
bench *ARGS="tms_5-2 --threads 2":
    cargo bench -p spdflow-stages --bench step -- {{ARGS}}

# The documentation of the code.
doc:
    cargo doc --workspace --no-deps --open

# Licences and sources of all dependencies (needs cargo-deny).
deny:
    cargo deny check

# Open the results with Python (needs safetensors, numpy and pyarrow); see CONTRIBUTING.md.
python OUT="out/tms":
    python3 tests/python/check_artifacts.py {{OUT}}
