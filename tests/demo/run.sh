#!/bin/bash
# The whole story on a private bus, with virtual Keys that run real PIV firmware, and Locks on a mosquitto. `make demo` builds first.
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
declare -A running # the name of a Lock → its process
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
    for process in "${plugged[@]}" "${running[@]}" ${watcher:-} ${daemon:-} ${broker:-} ${bus_daemon:-}; do
        kill "$process"
        wait "$process"
    done 2>/dev/null
    rm -rf "$work"
    [ $status -eq 0 ] || printf '\nThe demo failed (status %s). The daemon wrote:\n%s\n' $status "$log" >&2
    exit $status
}
trap clean_up EXIT
trap 'exit 130' HUP INT TERM

# until_true COMMAND…: returns as soon as the command succeeds, fails after a minute.
until_true() {
    local tries=1200
    until "$@" >/dev/null 2>&1; do
        if ((--tries == 0)); then echo "waited a minute in vain for: $*" >&2; return 1; fi
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

# certify NAME EXTENSION: a key pair and its certificate by the broker's authority.
certify() {
    openssl req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj "/CN=$1" \
        -keyout "$work/$1.key" -out "$work/$1.request" 2>/dev/null
    openssl x509 -req -in "$work/$1.request" -CA "$work/broker-ca.pem" -CAkey "$work/broker-ca.key" \
        -CAcreateserial -days 3650 -extfile <(echo "$2") -out "$work/$1.pem" 2>/dev/null
}

# What a broker needs: an authority, its own certificate, and one for the station.
prepare_broker() {
    port=$(shuf -i 20000-29999 -n 1)
    while (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do ((port += 1)); done
    openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 3650 -subj /CN=broker-ca \
        -keyout "$work/broker-ca.key" -out "$work/broker-ca.pem" 2>/dev/null
    certify broker subjectAltName=IP:127.0.0.1
    certify station extendedKeyUsage=clientAuth
    cat >"$work/keywrightd.toml" <<END
[link]
broker = "127.0.0.1:$port"
ca = "$work/broker-ca.pem"
certificate = "$work/station.pem"
key = "$work/station.key"
END
}

# Takes whom the family certified, and the station; each Lock has its own topics.
start_broker() {
    ctl family bundle --roots "$work/roots.pem" --crls "$work/crls.pem" >/dev/null
    cat "$work/roots.pem" "$work/broker-ca.pem" >"$work/broker-clients.pem"
    printf 'user station\ntopic readwrite keywright/1/#\n' >"$work/acl"
    printf 'pattern %s\n' 'read keywright/1/%u/grant/+' 'write keywright/1/%u/confirmation/+' \
        'write keywright/1/%u/papers' 'write keywright/1/%u/presence' >>"$work/acl"
    chmod 600 "$work/acl"
    cat >"$work/mosquitto.conf" <<END
user $(id -un)
listener $port 127.0.0.1
cafile $work/broker-clients.pem
certfile $work/broker.pem
keyfile $work/broker.key
require_certificate true
use_identity_as_username true
acl_file $work/acl
persistence true
persistence_location $work/
END
    PATH=$PATH:/usr/sbin mosquitto -c "$work/mosquitto.conf" >"$work/broker.log" 2>&1 & broker=$!
}

lockd() { "$programs/keywright-lockd" --state-dir "$work/$1.state" --config "$work/lockd.toml" "${@:2}"; }

start_lock() {
    # Not by the function above: the process is to be the program itself, and no shell around it.
    "$programs/keywright-lockd" --state-dir "$work/$1.state" --config "$work/lockd.toml" run \
        >"$work/$1.log" 2>&1 &
    running[$1]=$!
}

right_is() { ctl locks --key "$1" | grep -q "^$2 .* $3 "; }

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
prepare_broker
"$programs/keywrightd" --bus "$bus" --state-dir "$work/state" --virtual-reader "$work/reader" \
    --config "$work/keywrightd.toml" 2>"$work/daemon.log" & daemon=$!
until_true ctl keys
"$programs/keywrightctl" --bus "$bus" watch >"$work/watch.log" 2>&1 & watcher=$!

heading 'A blank Key becomes a Master Key'
say 'Its private keys are made on the token and never leave it. Factory PIN, PUK and management key are' \
    'replaced; the new PUK is the recovery code, handed out once.'
plug master
show serialize --kind master --name "Anna's Master" --yes --candidate-pin-file "$work/factory.pin" \
    --new-pin-file "$work/master.pin" --recovery-code-file "$work/recovery.code"
plug_again master

heading 'Three Locks, and a broker that nobody believes'
say 'A Lock makes its own key, and here openssl the request: any tool can. The Master signs its certificate. Two of' \
    'them run, with a link by a mosquitto; the attic is away.'
printf '[link]\nbroker = "127.0.0.1:%s"\nca = "%s"\n' "$port" "$work/broker-ca.pem" >"$work/lockd.toml"
start_broker
for lock in gate barn attic; do
    lockd $lock request >/dev/null
    openssl req -new -key "$work/$lock.state/identity.key" -subj "/CN=$lock" -out "$work/$lock.csr"
    show lock add $lock --csr "$work/$lock.csr" --out "$work/$lock.pem" --issuer-pin-file "$work/master.pin"
    lockd $lock claim "$work/$lock.pem" | sed 's/^/  /'
done
start_lock gate
start_lock barn

heading 'A blank Key beside the Master: a Sub Key for two of the three'
plug_candidate sub
make sub "Bob's Key" sub --lock gate --lock attic
if [ $interactive = no ]; then
    until_true right_is "Bob's Key" gate active
    show locks --key "Bob's Key"
fi
say 'A right is pending until the Lock has confirmed it, which the gate has done by itself.'
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

heading 'The attic comes back'
say 'Nobody does anything: the broker kept its grant, the Lock judges it, and what it signs makes the right active.'
start_lock attic
if [ $interactive = no ]; then
    until_true right_is "Bob's Key" attic active
    show locks --key "Bob's Key"
    bob=$(ctl --json keys | tr '{' '\n' | grep "Bob's Key" | grep -o '[0-9a-f]\{32\}' | head -n 1)
    grep -q "$bob" "$work/attic.state/lists/ssh_keys" || { echo 'the attic does not admit Bob' >&2; exit 1; }
    say "sshd at the attic would let in: $(grep "$bob" "$work/attic.state/lists/ssh_keys" | cut -c 1-60)…"
fi

heading "Done in $SECONDS s"
