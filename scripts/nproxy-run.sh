#!/usr/bin/env bash
# nproxy-run.sh: a command under nproxy in one of a few modes, short enough for an alias.
set -u
# As it is called: installed, it is nproxy-run.
name=${0##*/}

usage() {
    cat <<HELP
usage: $name MODE COMMAND [ARGUMENT]...

Runs a command under nproxy. Modes:

  pass       bytes as they are
  strip      without escape sequences
  stamp      with a timestamp in front of each line
  clean      both: no escape sequences, timestamps
  stats      bytes as they are, and a report at the end
  log        bytes as they are, and a copy without escape sequences in ./COMMAND.log
  watch      as pass, and a crash report in ~/.cache/nproxy if the command dies of a fault

  -h, --help  this text

More flags can be given in NPROXY_... variables (see nproxy --help). NPROXY names the program; default nproxy.
In a shell: alias make='$name clean make'
HELP
}

case ${1-} in
-h | --help)
    usage
    exit 0
    ;;
esac
if [ $# -lt 2 ]; then
    usage >&2
    exit 125
fi
mode=$1
shift
case $mode in
pass) set -- -- "$@" ;;
strip) set -- --text=strip-ansi -- "$@" ;;
stamp) set -- --text=transform -- "$@" ;;
clean) set -- --text=strip-ansi,transform -- "$@" ;;
stats) set -- --stats -- "$@" ;;
log) set -- --tee "./${1##*/}.log" --tee-text=strip-ansi -- "$@" ;;
watch)
    cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}
    mkdir -p "$cache"
    set -- --crash-dump "$cache/nproxy" -- "$@"
    ;;
*)
    printf '%s: no such mode: %s (see %s --help)\n' "$name" "$mode" "$name" >&2
    exit 125
    ;;
esac
exec "${NPROXY:-nproxy}" "$@"
