#!/usr/bin/env bash
# monitor-status.sh: a live table of the running nproxy sessions, made from `nproxy --status`.
set -u
# As it is called: installed, it is nproxy-monitor-status.
name=${0##*/}

usage() {
    cat <<HELP
usage: $name [--interval SECONDS] [--count N] [PID]

Shows the table of nproxy --status again and again, until interrupted.

  --interval SECONDS  time between two looks; default 1
  --count N           leave after N looks
  -h, --help          this text

NPROXY names the program to ask; default nproxy
HELP
}

wrong() {
    printf '%s: %s\n' "$name" "$1" >&2
    exit 2
}

interval=1
count=0
pid=
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --interval | --count)
        [ $# -ge 2 ] || wrong "$1 needs a value"
        case $1 in
        --interval) interval=$2 ;;
        --count) count=$2 ;;
        esac
        shift
        ;;
    *[!0-9]* | '') wrong "not a PID: $1" ;;
    *) pid=$1 ;;
    esac
    shift
done
case $interval in *[!0-9.]* | *.*.* | '' | .) wrong "not a time: $interval" ;; esac
case $count in *[!0-9]* | '') wrong "not a number: $count" ;; esac

looks=0
while :; do
    table=$("${NPROXY:-nproxy}" --status ${pid:+"$pid"} --status-format=text)
    status=$?
    if [ -t 1 ]; then
        # Home, then each line over the old one, then what is left below: nothing flickers.
        printf '\033[H'
        printf 'nproxy sessions, %s\033[K\n' "$(date +%T)"
        while IFS= read -r line; do
            printf '%.*s\033[K\n' "$(($(tput cols 2>/dev/null || echo 80) - 1))" "$line"
        done <<<"$table"
        printf '\033[J'
    else
        printf '%s\n' "$table"
    fi
    [ "$status" -eq 0 ] || exit "$status"
    looks=$((looks + 1))
    [ "$looks" -ne "$count" ] || exit 0
    sleep "$interval"
done
