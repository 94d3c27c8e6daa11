#!/usr/bin/env bash
# Does what the README says, word for word: starts the demonstration, runs every `$ ` line of the console blocks under
# "## Try it" and "## Webhooks", and compares what comes with what is printed there. Only what differs from run to run is made alike first:
# numbers, URLs, tags, secrets, dates. An id in a command is that of what was made last.
#
# Usage: tests/e2e/readme.sh PROGRAM      (the built avatar-proxy)
set -euo pipefail

program=$1
readme=$(cd "$(dirname "$0")/../.." && pwd)/README.md
folder=$(mktemp -d)
pid=
finish() {
    if [ -n "$pid" ]; then
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT

fail() {
    echo "readme.sh: $*" >&2
    sed 's/^/  the log: /' "$folder/log" >&2 || true
    exit 1
}

# What may differ from run to run, made alike; the order of headers is nobody's promise.
alike() {
    sed -E -e 's/\r$//' \
        -e 's#https?://[^" ]*#URL#g' \
        -e 's/^date: .*/date: DATE/' \
        -e 's/"[0-9a-f]{16}"/"TAG"/g' -e 's#"whsec_[A-Za-z0-9+/]{32}"#"SECRET"#g' \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]+Z/TIME/g' \
        -e 's/(ttl|max-age)=[0-9]+/\1=N/g' \
        -e 's/^(age|content-length): [0-9]+/\1: N/' \
        -e 's/^(ratelimit: .*;r=)[0-9]+;t=[0-9]+/\1N;t=N/' \
        -e 's/("id":)"[0-9]+"/\1"N"/g' \
        -e 's/^(avatar_proxy_[^ ]*) [0-9.e-]+$/\1 N/' \
        -e 's/ +#.*$//' -e '/^$/d' | LC_ALL=C sort
}

# Whatever proxy the environment names, this is loopback.
export no_proxy='*' NO_PROXY='*'

# On a free port instead of the README's, so that nothing else is in the way.
cd "$folder"
env -i PATH="$PATH" "$program" demo --listen 127.0.0.1:0 >"$folder/said" 2>"$folder/log" &
pid=$!
address=
for _ in $(seq 200); do
    # Its last line of greeting: everything before it is written.
    if grep -q 'Stop: Ctrl-C' "$folder/said"; then
        address=$(grep -oE '127\.0\.0\.1:[0-9]+' "$folder/said" | head -n 1)
        break
    fi
    kill -0 "$pid" 2>/dev/null || fail "the demonstration ended"
    sleep 0.05
done
[ -n "$address" ] || fail "the demonstration does not listen"

# One file for each command of the section: its first line is the command, the others what it prints.
awk -v folder="$folder" '
    /^## / { there = ($0 == "## Try it" || $0 == "## Webhooks") }
    !there { next }
    /^```/ { console = !console && /^```console/; next }
    console && /^\$ / { command++; sub(/^\$ /, "") }
    console && command { print > sprintf("%s/%02d", folder, command) }
' "$readme"

ran=0
id=
for file in "$folder"/[0-9][0-9]; do
    command=$(head -n 1 "$file")
    case $command in
        # The start of the demonstration itself: what it prints was caught above.
        *' demo') actual=$(cat "$folder/said") ;;
        curl*)
            command=$(sed -E "s#/webhooks/[0-9a-f]{16}#/webhooks/$id#" <<<"$command")
            actual=$(timeout 30 bash -c "${command//127.0.0.1:8080/$address}" 2>"$folder/errors") ||
                fail "failed: $command: $(cat "$folder/errors")"
            ;;
        *) fail "the README has a command that this script does not know: $command" ;;
    esac
    if ! diff -u --label README.md --label actual <(tail -n +2 "$file" | alike) <(alike <<<"$actual"); then
        fail "the README says something else about: $command"
    fi
    made=$(grep -oE '^\{"id":"[0-9a-f]{16}"' <<<"$actual" || true)
    [ -z "$made" ] || id=${made:7:16}
    echo "as the README says: $command"
    ran=$((ran + 1))
done
[ "$ran" -ge 13 ] || fail "only $ran commands were found in the README"

kill "$pid"
for _ in $(seq 200); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.05
done
kill -0 "$pid" 2>/dev/null && fail "it does not stop"
wait "$pid" || fail "it ended with $?"
pid=
echo "$ran commands of the README do what it says"
