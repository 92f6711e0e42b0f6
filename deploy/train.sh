#!/usr/bin/env bash
# The training run: drives an instrumented build over plain HTTP, TLS and HTTP/2, with an app and
# rules, small and large bodies, in both directions.
#
#   deploy/train.sh PROGRAM SIMULATOR DIRECTORY [REQUESTS]
#
# SIMULATOR is a build with the simulated Collibra. Writes a .profraw file to DIRECTORY. Needs curl and
# openssl.
set -euo pipefail

program=$(realpath "$1") simulator=$(realpath "$2") profiles=$(realpath "$3") requests=${4:-10000}
work=$(mktemp -d)
started=()
finish() {
    ((${#started[@]} == 0)) || kill "${started[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap finish EXIT

# Runs the simulated Collibra or its HTTP/2 front, which are not trained. For background jobs only: it
# replaces the subshell, so that killing the job ends the program.
aside() {
    LLVM_PROFILE_FILE=/dev/null exec "$simulator" "$@"
}

# Waits for the first match of an expression in a log.
wait_for() {
    local expression=$1 log=$2 found
    for _ in {1..300}; do
        found=$(sed -n "s/$expression/\1/p" "$log" 2>/dev/null | head -n 1)
        [[ -z $found ]] || { printf '%s' "$found"; return; }
        sleep 0.1
    done
    echo "no line like $expression:" >&2
    cat "$log" >&2
    exit 1
}

# The address of the listener with this name.
address_of() {
    wait_for ".*\"listening\".*\"listener\":\"$1\",\"address\":\"\([^\"]*\)\".*" "$2"
}

secret=training
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
    -keyout "$work/key.pem" -out "$work/certificate.pem" 2>/dev/null
printf 'a-key-of-the-training-run' >"$work/key"
printf '%s' "$secret" >"$work/secret"

collibra() {
    aside simulate --listen 127.0.0.1:0 --client "$client:$secret" --lifetime 1h "${@:2}" >"$work/$1.log" 2>&1 &
    started+=($!)
}
client=training
collibra plain
collibra tls --tls-cert "$work/certificate.pem" --tls-key "$work/key.pem"
plain=$(wait_for '.*at http:\/\/127.0.0.1:\([0-9]*\).*' "$work/plain.log")
tls=$(wait_for '.*at https:\/\/[^:]*:\([0-9]*\).*' "$work/tls.log")

cat >"$work/http2.toml" <<EOF
[instance.plain]
url = "http://127.0.0.1:$plain"
[client.http2]
client_id = "$client"
client_secret_file = "secret"
[listener.http2]
address = "127.0.0.1:0"
tls = { cert_file = "certificate.pem", key_file = "key.pem" }
[admin]
address = "127.0.0.1:0"
[log]
access = false
EOF
aside --log-format json serve --config "$work/http2.toml" >"$work/http2.log" 2>&1 &
started+=($!)
http2=$(address_of http2 "$work/http2.log")

cat >"$work/trained.toml" <<EOF
[instance.plain]
url = "http://127.0.0.1:$plain"
[instance.tls]
url = "https://localhost:$tls"
ca_file = "certificate.pem"
http2 = false
[instance.http2]
url = "https://localhost:${http2##*:}"
ca_file = "certificate.pem"
[app.trainer]
key_file = "key"
allow = ["GET /rest/2.0/**", "/_bytes/**", "POST /graphql/**"]
[admin]
address = "127.0.0.1:0"
[server]
threads = 1
EOF
# with the credentials of that proxy's own client, a local token of it would count as a loop
printf 'another' >"$work/secret-http2"
cp "$work/secret" "$work/secret-plain"
cp "$work/secret" "$work/secret-tls"
for upstream in plain tls http2; do
    cat >>"$work/trained.toml" <<EOF
[client.$upstream]
instance = "$upstream"
client_id = "$client"
client_secret_file = "secret-$upstream"
[listener.$upstream]
address = "127.0.0.1:0"
client = "$upstream"
EOF
done
LLVM_PROFILE_FILE="$profiles/%p-%m.profraw" "$program" --log-format json serve \
    --config "$work/trained.toml" >"$work/trained.log" 2>&1 &
trained=$!
started+=("$trained")

call() {
    curl --no-progress-meter --fail --output /dev/null --max-time 300 \
        --header "Authorization: Bearer $(<"$work/key")" --header 'Accept: application/json' "$@"
}
head -c 100000 /dev/zero >"$work/body"
for upstream in tls http2 plain; do
    url=http://$(address_of $upstream "$work/trained.log")
    call --parallel --parallel-max 50 "$url/_bytes/1024?[1-$requests]"
    call --parallel --parallel-max 10 --data-binary "@$work/body" "$url/_bytes?[1-100]"
    call --parallel --parallel-max 10 "$url/_bytes/100000?[1-200]"
done
# the profile is written on a normal exit
kill -TERM "$trained"
wait "$trained"
