# What the scripts share. Every script is one test: it passes when it ends with status 0.
topic() { echo "kcat-$(basename "$0" .sh)-$$-$RANDOM"; }
same() { # same EXPECTED ACTUAL
    [ "$1" = "$2" ] || { printf 'expected:\n%s\nfound:\n%s\n' "$1" "$2" >&2; exit 1; }
}
kc() { timeout 30 kcat -b "$BOOTSTRAP" "$@"; }
sasl() { # sasl MECHANISM PASSWORD ARGUMENT...
    timeout 30 kcat -X security.protocol=SASL_PLAINTEXT -b "$BOOTSTRAP_SASL_PLAINTEXT" -X "sasl.mechanism=$1" \
        -X "sasl.username=$SASL_USER" -X "sasl.password=$2" "${@:3}"
}
round_trip() { # round_trip COMMAND...: produce and consume through a command like kc
    local name; name=$(topic)
    seq 50 | "$@" -P -t "$name" -X acks=all
    same "$(seq 50)" "$("$@" -C -t "$name" -o beginning -e -q)"
}
