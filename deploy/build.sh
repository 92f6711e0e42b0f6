#!/usr/bin/env bash
# Builds the program for packages and images, and prints its path: profile `dist`, optimised with the
# profile of a training run (deploy/train.sh).
#
#   deploy/build.sh [--image] [--plain]
#
# --image leaves out the simulated Collibra (the commands demo and simulate), for the container image.
# Needs Rust and a C compiler. The training needs curl, openssl and rustc's own llvm-profdata (rustup
# component add llvm-tools). Without one of them, or with --plain, it makes a `dist` build without a
# profile, and says so.
# CARGO_BUILD replaces the command `cargo build --locked`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly name=collibra-auth-proxy
# let bash split the command
read -ra build <<<"${CARGO_BUILD:-cargo build --locked}"

say() {
    printf '%s\n' "$*" >&2
}

features=() plain='' flags=''
for option; do
    case $option in
    --image)
        features=(--no-default-features --features kubernetes)
        # 2 MB less stay resident. It takes glibc 2.36, and the image has the one of this machine.
        libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || true)
        if printf '%s\n' 'glibc 2.36' "$libc" | sort --version-sort --check=quiet; then
            flags='-Clink-arg=-Wl,-z,pack-relative-relocs'
        fi
        ;;
    --plain) plain=yes ;;
    *) say "unknown option $option: the options are --image and --plain"; exit 2 ;;
    esac
done

# before anything is built, which takes minutes
for program in cargo rustc cc; do
    command -v "$program" >/dev/null || {
        say "$program is missing: install Rust with rustup (https://rustup.rs), and gcc and libc6-dev"
        exit 1
    }
done
"${build[@]}" --help >/dev/null 2>&1 || {
    say "\`${build[*]}\` does not run: cargo install --locked cargo-${build[1]}"
    exit 1
}

host=$(rustc -vV | sed -n 's/^host: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

# rustc's own, or one of the same LLVM version: others cannot read its files
find_profdata() {
    local own
    own=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
    [[ -x $own ]] || rustup component add llvm-tools >/dev/null 2>&1 || true
    if [[ -x $own ]]; then
        printf '%s' "$own"
    elif llvm-profdata --version 2>/dev/null | grep -q "LLVM version $llvm\."; then
        command -v llvm-profdata
    else
        say "no llvm-profdata of LLVM $llvm here: rustup component add llvm-tools"
        return 1
    fi
}

train() {
    local profdata work=$PWD/target/profile
    profdata=$(find_profdata) || return
    for program in curl openssl; do
        command -v "$program" >/dev/null || { say "no $program here"; return 1; }
    done
    rm -rf "$work"
    mkdir -p "$work"
    say 'building the program that counts what it runs'
    # With any other setting of the profile, LTO included, functions have other names, and nothing that was
    # counted would be used. With a target, build scripts are not instrumented.
    RUSTFLAGS="-Cprofile-generate=$work" "${build[@]}" "${features[@]}" --profile dist --target "$host" \
        --target-dir target/counting >&2 || return
    # the profile fits only a build with the same features, so another build simulates Collibra
    "${build[@]}" --bin "$name" >&2 || return
    say 'the training run'
    deploy/train.sh "target/counting/$host/dist/$name" "target/debug/$name" "$work" >&2 || return
    "$profdata" merge -o "$work/merged" "$work"/*.profraw >&2 || return
    # the functions that ran, the most frequent first
    "$profdata" show --all-functions --counts "$work/merged" | awk '
        /^  [^ ].*:$/ { name = $1; sub(/:$/, "", name); sub(/.*;/, "", name) }
        /^    Block counts:/ {
            most = 0
            for (i = 3; i <= NF; i++) { gsub(/[^0-9]/, "", $i); if ($i + 0 > most) most = $i + 0 }
            if (most) print most, name
        }' | sort -rn | cut -d ' ' -f 2 >"$work/order" || return
    printf '%s' "$work"
}

profile=''
if [[ -z $plain ]]; then
    profile=$(train) || profile=''
    [[ -n $profile ]] || say 'going on without a training run: this build is a fifth slower'
fi
# builds with other flags use another target directory, so that they do not invalidate each other
if [[ -n $profile ]]; then
    # What runs lies together, so that the rest, two thirds of the code, stays out of memory. This needs
    # LLD, Rust's own linker on most machines.
    order=("-Clink-arg=-Wl,--symbol-ordering-file=$profile/order" -Clink-arg=-Wl,--no-warn-symbol-ordering)
    if echo 'fn main() {}' | rustc - -o "$profile/trial" "${order[@]}" >/dev/null 2>&1; then
        flags+=" ${order[*]}"
    fi
    RUSTFLAGS="-Cprofile-use=$profile/merged $flags" "${build[@]}" "${features[@]}" --profile dist --target "$host" \
        --target-dir target/trained >&2
    built=target/trained/$host/dist/$name
    nm "$built" | awk '{ print $NF }' | grep -xFf <(head -n 100 "$profile/order") >/dev/null || {
        say 'the build has none of the functions that ran most in the training: its settings are not those of the counting build'
        exit 1
    }
    mkdir -p target/dist
    install -m 0755 "$built" "target/dist/$name"
else
    RUSTFLAGS=$flags "${build[@]}" "${features[@]}" --profile dist >&2
fi
echo "target/dist/$name"
