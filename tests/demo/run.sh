#!/bin/bash
# run.sh [--interactive]: plays the demo on a private message bus, with virtual Keys that run real PIV firmware, and
# Locks that are connected to a mosquitto. `make demo` builds the programs first.
#
# With --interactive a person answers the wizard for the Sub Key and the Backup Key.
# Exits with 0 only when every step succeeded.
set -euo pipefail

# The directory of the built programs.
programs=${DEMO_PROGRAMS:-${CARGO_TARGET_DIR:-$(dirname "$0")/../../target}/debug}
interactive=no
case "$*" in
    '') ;;
    --interactive) interactive=yes ;;
    *) echo 'usage: run.sh [--interactive]' >&2; exit 2 ;;
esac

work=$(mktemp -d)
bus=unix:path=$work/bus
declare -A plugged # name of a virtual Key → its process
declare -A running # name of a Lock → its process
bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

heading() { printf '\n%s== %s ==%s\n' "$bold" "$1" "$plain"; }
say() { fold -s -w 100 <<<"$*" | sed 's/ $//'; }
ctl() { "$programs/keywrightctl" --bus "$bus" "$@"; }

# This shell may be killed without a chance to clean up. Two things hold then too:
# - `start` has the kernel kill what it started when this shell dies. The inner shell exits at once where this one died
#   before the kernel was told.
# - The guardian deletes the folder with the PIN files. It reads from a pipe whose other end this shell and everything
#   it starts have open, so it goes on when the last of them is gone. In a session of its own, neither the
#   terminal's signals nor a kill of the whole process group reach it.
start() { exec setpriv --pdeathsig KILL sh -c '[ "$PPID" = "$0" ] && exec "$@"' $$ "$@"; }
exec {alive}> >(exec setsid --fork sh -c 'cat; until rm -rf "$0"; do sleep 0.1; done' "$work" >/dev/null 2>&1)

# Ends everything that was started here and deletes its files, however the demo ends.
clean_up() {
    local status=$? log process tries
    trap - EXIT
    set +e
    log=$(cat "$work/daemon.log")
    for process in ${wizard:-} "${plugged[@]}" "${running[@]}" ${watcher:-} ${daemon:-} ${broker:-} \
        ${bus_daemon:-}; do
        kill "$process"
        # Not `wait`: after a signal bash 5.2 sometimes waits for a child that it has reaped already. What does not end
        # in time is killed when this shell exits.
        for tries in {1..250}; do
            kill -0 "$process" || break
            sleep 0.02
        done
    done 2>/dev/null
    rm -rf "$work"
    # The wizard may have been asking for a PIN, without echo. Not to be stopped where this is a background job.
    trap '' TTOU
    [ -z "$terminal" ] || stty -drain "$terminal" 2>/dev/null
    [ $status -eq 0 ] || printf '\nThe demo failed (status %s). The daemon wrote:\n%s\n' $status "$log" >&2
    exit $status
}
terminal=$(stty -g 2>/dev/null || true)
trap clean_up EXIT
trap 'exit 130' HUP INT TERM

# until_true COMMAND…: returns as soon as the command succeeds, fails after a minute.
until_true() {
    local tries=1200
    until "$@" >/dev/null 2>&1; do
        if ((--tries == 0)); then echo "gave up after a minute of waiting for: $*" >&2; return 1; fi
        sleep 0.05
    done
}

# show WORD…: runs keywrightctl and prints command and output, without the PIN files and the progress bar.
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

# certify NAME EXTENSION: makes a key pair and has the broker's CA certify it.
certify() {
    openssl req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj "/CN=$1" \
        -keyout "$work/$1.key" -out "$work/$1.request" 2>/dev/null
    openssl x509 -req -in "$work/$1.request" -CA "$work/broker-ca.pem" -CAkey "$work/broker-ca.key" \
        -CAcreateserial -days 3650 -extfile <(echo "$2") -out "$work/$1.pem" 2>/dev/null
}

# Makes the broker's CA, the broker's certificate and the daemon's client certificate.
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

# Starts the broker. It accepts clients with a certificate from the family, and the daemon; each Lock has its own topics.
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
    PATH=$PATH:/usr/sbin start mosquitto -c "$work/mosquitto.conf" >"$work/broker.log" 2>&1 & broker=$!
}

lockd() { "$programs/keywright-lockd" --state-dir "$work/$1.state" --config "$work/lockd.toml" "${@:2}"; }

start_lock() {
    start "$programs/keywright-lockd" --state-dir "$work/$1.state" --config "$work/lockd.toml" run \
        >"$work/$1.log" 2>&1 &
    running[$1]=$!
}

right_is() { ctl locks --key "$1" | grep -q "^$2 .* $3 "; }

keys_plugged_in() { [ "$(ctl keys | grep -c ' now ')" = "$1" ]; }
offers() { grep -c ' offer: ' "$work/watch.log" || true; }
more_offers() { [ "$(offers)" -gt "$1" ]; }

plug() {
    start "$programs/virtual-key" --socket "$work/reader" --state "$work/$1.key" --serial "$1" >/dev/null &
    plugged[$1]=$!
    until_true keys_plugged_in ${#plugged[@]}
}

unplug() {
    kill "${plugged[$1]}"
    wait "${plugged[$1]}" 2>/dev/null || true
    unset "plugged[$1]"
    until_true keys_plugged_in ${#plugged[@]}
}

# The firmware of the virtual Keys stays authorized after a job until it is unplugged, as the daemon reports.
plug_again() { unplug "$1"; plug "$1"; }

plug_candidate() {
    local before
    before=$(offers)
    plug "$1"
    until_true more_offers "$before"
    grep ' offer: ' "$work/watch.log" | tail -n 1 | sed 's/.* offer: /  the daemon offers: /'
}

# make KIND NAME PIN-FILE [OPTION…]: makes a Key. The options answer the wizard's questions, or a person does.
make() {
    local kind=$1 name=$2 new=$3
    shift 3
    if [ $interactive = yes ]; then
        say "Your turn: make a $kind Key. The PIN of Anna's Master is 271828. The blank token still has its" \
            "factory PIN, 123456; choose a new one of 6 to 8 digits."
        # Not in the foreground: there this shell would hear a signal only after the wizard's end. INT reaches a
        # background command only when it is told so.
        start env --default-signal=INT "$programs/keywrightctl" --bus "$bus" wizard <&0 & wizard=$!
        wait $wizard
        wizard=
    else
        show serialize --kind "$kind" --name "$name" "$@" --yes --issuer-pin-file "$work/master.pin" \
            --candidate-pin-file "$work/factory.pin" --new-pin-file "$work/$new.pin"
    fi
}

# check FILE: verifies a chain of certificates, leaf first, strictly and with the CRL of every CA.
check() {
    openssl verify -x509_strict -crl_check_all -show_chain -trusted "$work/roots.pem" \
        -CRLfile "$work/crls.pem" -untrusted "$1" "$1" |
        sed -e "s|$work/||" -e '/^Chain:/d' -e 's/ (untrusted)//' -e 's/^depth=/    &/' -e 's/^/  /'
}

heading 'Start the daemon on a message bus of its own'
say 'Nothing of your system is used or changed. The USB tokens are programs that run the PIV firmware of a real' \
    'product: starting one is plugging it in.'
printf 123456 >"$work/factory.pin"
printf 271828 >"$work/master.pin"
printf 314159 >"$work/sub.pin"
printf 141421 >"$work/backup.pin"
start dbus-daemon --session --nofork --nopidfile --address="$bus" 2>"$work/bus.log" & bus_daemon=$!
until_true test -S "$work/bus"
prepare_broker
start "$programs/keywrightd" --bus "$bus" --state-dir "$work/state" --virtual-reader "$work/reader" \
    --config "$work/keywrightd.toml" 2>"$work/daemon.log" & daemon=$!
until_true ctl keys
start "$programs/keywrightctl" --bus "$bus" watch >"$work/watch.log" 2>&1 & watcher=$!

heading 'Make a blank token the Master Key'
say 'The token makes its private keys itself, and they never leave it. Its factory PIN, PUK and management key are' \
    'replaced; the new PUK is the recovery code, handed out once.'
plug master
show serialize --kind master --name "Anna's Master" --yes --candidate-pin-file "$work/factory.pin" \
    --new-pin-file "$work/master.pin" --recovery-code-file "$work/recovery.code"
plug_again master

heading 'Add three Locks; an MQTT broker carries messages but is not trusted'
say 'A Lock is a gateway. It makes its own key, and the Master Key signs its certificate. Two of the Locks run and' \
    'are connected to the broker; the attic is switched off.'
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

heading 'Plug in a blank token beside the Master: make it a Sub Key for two of the three Locks'
plug_candidate sub
make sub "Bob's Key" sub --lock gate --lock attic
if [ $interactive = no ]; then
    until_true right_is "Bob's Key" gate active
    show locks --key "Bob's Key"
fi
say 'A right is pending until its Lock has confirmed it. The gate has, by itself; the attic is still switched off.'
unplug sub
plug_again master

heading 'Plug in another blank token: make it a Backup Key'
say 'It may do what the Master may, and has private keys of its own: it is no copy.'
plug_candidate backup
make backup "Anna's Backup" backup
show keys

heading 'Verify every certificate with openssl: strictly, and with the CRL of every CA'
ctl family bundle --roots "$work/roots.pem" --crls "$work/crls.pem" >/dev/null
ids=$(ctl keys | awk 'NR > 1 && $NF != "-" {print $NF}')
for id in $ids; do
    ctl key certificate "$id" >"$work/key-$id.pem"
    check "$work/key-$id.pem"
done
for lock in gate barn attic; do check "$work/$lock.pem"; done
[ "$(wc -w <<<"$ids")" = 3 ] || { echo "expected three Keys, got: $ids" >&2; exit 1; }

heading 'Switch on the attic'
say 'Nothing else is needed: the broker kept the grant, the attic verifies it and signs a confirmation, and the right' \
    'becomes active.'
start_lock attic
if [ $interactive = no ]; then
    until_true right_is "Bob's Key" attic active
    show locks --key "Bob's Key"
    bob=$(ctl --json keys | tr '{' '\n' | grep "Bob's Key" | grep -o '[0-9a-f]\{32\}' | head -n 1)
    grep -q "$bob" "$work/attic.state/lists/ssh_keys" || { echo 'the attic does not admit Bob' >&2; exit 1; }
    say "sshd on the attic would now let in: $(grep "$bob" "$work/attic.state/lists/ssh_keys" | cut -c 1-60)…"
fi

heading "Done in $SECONDS s"
