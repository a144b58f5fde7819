#!/bin/bash
# The whole story on a private bus, with virtual Keys that run real PIV firmware. `make demo` builds first.
#
# With --interactive a person answers the wizard for the Sub Key and the Backup Key.
# Ends with 0 only when everything went as told.
set -euo pipefail

# Where the built programs are.
programs=${DEMO_PROGRAMS:-${CARGO_TARGET_DIR:-$(dirname "$0")/../../target}/debug}
interactive=no
case "$*" in
    '') ;;
    --interactive) interactive=yes ;;
    *) echo 'usage: run.sh [--interactive]' >&2; exit 2 ;;
esac

work=$(mktemp -d)
bus=unix:path=$work/bus
declare -A plugged # the name of a virtual Key → its process
bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

heading() { printf '\n%s== %s ==%s\n' "$bold" "$1" "$plain"; }
say() { fold -s -w 100 <<<"$*"; }
ctl() { "$programs/keywrightctl" --bus "$bus" "$@"; }

# Whatever happens, nothing that was started here goes on, and no file stays.
clean_up() {
    local status=$? log process
    trap - EXIT
    set +e
    log=$(cat "$work/daemon.log")
    for process in "${plugged[@]}" ${watcher:-} ${daemon:-} ${bus_daemon:-}; do
        kill "$process"
        wait "$process"
    done 2>/dev/null
    rm -rf "$work"
    [ $status -eq 0 ] || printf '\nThe demo failed (status %s). The daemon wrote:\n%s\n' $status "$log" >&2
    exit $status
}
trap clean_up EXIT
trap 'exit 130' HUP INT TERM

# until_true COMMAND…: returns as soon as the command succeeds, fails after 10 s.
until_true() {
    local tries=200
    until "$@" >/dev/null 2>&1; do
        if ((--tries == 0)); then echo "waited 10 s in vain for: $*" >&2; return 1; fi
        sleep 0.05
    done
}

# show WORD…: runs keywrightctl and shows it, but for the PIN files and the progress bar.
show() {
    local line='' word
    for word in "$@"; do
        case $word in *' '*) word="\"$word\"" ;; esac
        line+=" $word"
    done
    line=$(sed -E "s| --[a-z-]+-file [^ ]+||g; s|$work/||g" <<<"$line")
    printf '%s$ keywrightctl%s%s\n' "$bold" "$line" "$plain"
    ctl "$@" 2>&1 | sed -e '/^\[[#.]*\] /d' -e "s|$work/||g" -e 's/^/  /'
}

keys_plugged_in() { [ "$(ctl keys | grep -c ' now ')" = "$1" ]; }
offers() { grep -c ' offer: ' "$work/watch.log" || true; }
more_offers() { [ "$(offers)" -gt "$1" ]; }

plug() {
    "$programs/virtual-key" --socket "$work/reader" --state "$work/$1.key" --serial "$1" >/dev/null &
    plugged[$1]=$!
    until_true keys_plugged_in ${#plugged[@]}
}

unplug() {
    kill "${plugged[$1]}"
    wait "${plugged[$1]}" 2>/dev/null || true
    unset "plugged[$1]"
    until_true keys_plugged_in ${#plugged[@]}
}

# This firmware stays authorized after a job until it is unplugged; the daemon found that out and said so.
plug_again() { unplug "$1"; plug "$1"; }

plug_candidate() {
    local before
    before=$(offers)
    plug "$1"
    until_true more_offers "$before"
    grep ' offer: ' "$work/watch.log" | tail -n 1 | sed 's/.* offer: /  the daemon offers: /'
}

# make KIND NAME PIN-FILE [OPTION…]: the options answer the wizard, or a person does.
make() {
    local kind=$1 name=$2 new=$3
    shift 3
    if [ $interactive = yes ]; then
        say "Your turn: a $kind Key. The PIN of Anna's Master is 271828, that of the blank Key is the" \
            "factory's, 123456. Choose a new one of 6 to 8 digits."
        ctl wizard
    else
        show serialize --kind "$kind" --name "$name" "$@" --yes --issuer-pin-file "$work/master.pin" \
            --candidate-pin-file "$work/factory.pin" --new-pin-file "$work/$new.pin"
    fi
}

# check FILE: a chain, leaf first, strictly, with the CRL of every CA.
check() {
    openssl verify -x509_strict -crl_check_all -show_chain -trusted "$work/roots.pem" \
        -CRLfile "$work/crls.pem" -untrusted "$1" "$1" |
        sed -e "s|$work/||" -e '/^Chain:/d' -e 's/ (untrusted)//' -e 's/^depth=/    &/' -e 's/^/  /'
}

heading 'A private bus and the daemon'
say 'Nothing of your system is touched. The Keys run the PIV firmware of a real product; to start one is' \
    'to plug it in.'
printf 123456 >"$work/factory.pin"
printf 271828 >"$work/master.pin"
printf 314159 >"$work/sub.pin"
printf 141421 >"$work/backup.pin"
dbus-daemon --session --nofork --nopidfile --address="$bus" 2>"$work/bus.log" & bus_daemon=$!
until_true test -S "$work/bus"
"$programs/keywrightd" --bus "$bus" --state-dir "$work/state" --virtual-reader "$work/reader" \
    2>"$work/daemon.log" & daemon=$!
until_true ctl keys
"$programs/keywrightctl" --bus "$bus" watch >"$work/watch.log" 2>&1 & watcher=$!

heading 'A blank Key becomes a Master Key'
say 'Its private keys are made on the token and never leave it. Factory PIN, PUK and management key are' \
    'replaced; the new PUK is the recovery code, handed out once.'
plug master
show serialize --kind master --name "Anna's Master" --yes --candidate-pin-file "$work/factory.pin" \
    --new-pin-file "$work/master.pin" --recovery-code-file "$work/recovery.code"
plug_again master

heading 'Three Locks'
say 'A Lock makes its own key, and a request with openssl; the Master signs its certificate.'
for lock in gate barn attic; do
    openssl req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj "/CN=$lock" \
        -keyout "$work/$lock.private" -out "$work/$lock.csr" 2>/dev/null
    show lock add $lock --csr "$work/$lock.csr" --out "$work/$lock.pem" --issuer-pin-file "$work/master.pin"
done

heading 'A blank Key beside the Master: a Sub Key for two of the three'
plug_candidate sub
make sub "Bob's Key" sub --lock gate --lock attic
[ $interactive = yes ] || show locks --key "Bob's Key"
say 'A right is pending until the Lock has confirmed it.'
unplug sub
plug_again master

heading 'Another blank Key: a Backup Key'
say 'A peer of the Master with private keys of its own, not a clone.'
plug_candidate backup
make backup "Anna's Backup" backup
show keys

heading 'What openssl says: strictly, with the CRL of every CA'
ctl family bundle --roots "$work/roots.pem" --crls "$work/crls.pem" >/dev/null
ids=$(ctl keys | awk 'NR > 1 && $NF != "-" {print $NF}')
for id in $ids; do
    ctl key certificate "$id" >"$work/key-$id.pem"
    check "$work/key-$id.pem"
done
for lock in gate barn attic; do check "$work/$lock.pem"; done
[ "$(wc -w <<<"$ids")" = 3 ] || { echo "these Keys were to be three: $ids" >&2; exit 1; }

heading "Done in $SECONDS s"
