#!/usr/bin/env bash
# monitor-status.sh: a live table of the running nproxy sessions, made from `nproxy --status`.
set -u
# As it is called: installed, it is nproxy-monitor-status.
name=${0##*/}

usage() {
    cat <<HELP
usage: $name [--interval SECONDS] [--count N] [PID]

Shows the table of nproxy --status again and again, until interrupted: the
sessions, the V8 heaps of their Node processes (nproxy --node), and how often
a command has been started anew since the first look.

  --interval SECONDS  time between two looks; default 1
  --count N           leave after N looks
  -h, --help          this text

NPROXY names the program to ask; default: the nproxy beside this script, or
the one in PATH
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

# The program that was installed beside this script counts before one in PATH.
nproxy=${0%/*}/nproxy
[ -x "$nproxy" ] || nproxy=nproxy
nproxy=${NPROXY:-$nproxy}

# Sessions by their process number, and for each command how many of its sessions are gone, and how often it came again.
declare -A running=() ended=() restarts=()

# Takes note of which sessions are there. A command that comes after a session of the same words has ended is a restart.
follow() {
    local pid command
    declare -A now=()
    while read -r pid command; do
        [ -n "$pid" ] && now[$pid]=$command
    done < <("$nproxy" --status ${1:+"$1"} --status-format=prometheus 2>/dev/null |
        sed -n 's/^nproxy_session_info{pid="\([0-9]*\)",engine="[a-z]*",command="\(.*\)"} 1$/\1 \2/p')
    for pid in "${!running[@]}"; do
        [ -n "${now[$pid]-}" ] && continue
        command=${running[$pid]}
        ended[$command]=$((${ended[$command]-0} + 1))
        unset "running[$pid]"
    done
    for pid in "${!now[@]}"; do
        [ -n "${running[$pid]-}" ] && continue
        command=${now[$pid]}
        running[$pid]=$command
        if [ "${ended[$command]-0}" -gt 0 ]; then
            ended[$command]=$((${ended[$command]} - 1))
            restarts[$command]=$((${restarts[$command]-0} + 1))
        fi
    done
}

show_restarts() {
    local command
    for command in "${!restarts[@]}"; do
        printf 'restarts: %s of %s\n' "${restarts[$command]}" "$command"
    done | sort
}

looks=0
while :; do
    table=$("$nproxy" --status ${pid:+"$pid"} --status-format=text)
    status=$?
    follow "$pid"
    again=$(show_restarts)
    table=$table${again:+$'\n\n'$again}
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
