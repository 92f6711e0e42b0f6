# The usual commands: `just` lists them.

_list:
    @just --list --unsorted

# install what the tests need
setup:
    tests/setup

# every check, as CI runs them
check:
    tests/run

# tests whose names contain all of NAMES
test *names:
    cargo test --locked -- {{names}}

# unit tests only
unit *names:
    cargo test --locked --lib -- {{names}}

# format, then lint
lint:
    cargo fmt --all
    cargo clippy --locked --workspace --all-targets -- -D warnings

# the documentation of the code, without warnings
doc:
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps

# the simulated Collibra, the proxy and apps, for 30 s
demo:
    cargo run --release -- demo

# the proxy with a sample configuration of config/
serve sample='local':
    cargo run -- serve --config config/{{sample}}.toml

# one benchmark: compare, hour, scale or bad_day
bench name *args:
    cargo bench --bench {{name}} -- {{args}}

# the program as packages and images have it
dist:
    deploy/build.sh

# advisories, licences and sources of dependencies
audit:
    cargo deny --locked check
