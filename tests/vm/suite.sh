#!/bin/sh
# shellcheck disable=SC2154 # `part` is set by init, before this is used
# What every part of the suite uses. A test is a function; `check` runs it in a process of its own, bounded in time, and
# takes its exit status: 0 passed, 77 skipped (its last line says why), anything else failed (the same).

# Seconds that one test may take on an emulated machine.
LIMIT=100

check() {
    name=$1 began=$(cut -d ' ' -f 1 /proc/uptime)
    shift
    # In a session of its own, so that what a failed test left behind can be found and ended.
    setsid timeout -s KILL "$LIMIT" sh -c "part_is_loaded=yes; part=$part; . /suite.sh; . /$part.sh; $*" >/tmp/output 2>&1 </dev/null
    status=$?
    why=$(tail -n 3 /tmp/output | tr '\n' ' ' | cut -c 1-400)
    case $status in
        0) echo "pass $name ($(elapsed "$began") s)" ;;
        77) echo "skip $name: $why" ;;
        *) echo "FAIL $name: status $status: $why" ;;
    esac
    rm -rf /tmp/*
}

elapsed() { echo "$1 $(cut -d ' ' -f 1 /proc/uptime)" | awk '{ printf "%.1f", $2 - $1 }'; }

# Within a test.
fail() { echo "$*"; exit 1; }
skip() { echo "$*"; exit 77; }
expect() { # WHAT ACTUAL EXPECTED
    [ "$2" = "$3" ] || fail "$1: got '$2', expected '$3'"
}

sum() { md5sum | cut -d ' ' -f 1; }

# Whether this nproxy has the flag.
has() { nproxy --help | grep -q -e "$1"; }
