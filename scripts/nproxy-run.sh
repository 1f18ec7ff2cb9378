#!/usr/bin/env bash
# nproxy-run.sh: a command under nproxy in one of a few modes, short enough for an alias.
set -u
# As it is called: installed, it is nproxy-run.
name=${0##*/}

usage() {
    cat <<HELP
usage: $name [MODE] [OPTION]... [--] COMMAND [ARGUMENT]...
       $name status

Runs a command under nproxy. Modes:

  pass       bytes as they are; the same without a mode (passthrough)
  strip      without escape sequences (strip-ansi)
  stamp      with a timestamp in front of each line (transform)
  clean      both: no escape sequences, timestamps
  stats      bytes as they are, and a report at the end
  log        bytes as they are, and a copy without escape sequences in ./COMMAND.log
  watch      as pass, and a crash report in ~/.cache/nproxy if the command dies of a fault
  status     no command: the running sessions

  -h, --help  this text

Options are those of nproxy, such as --pty or --node (see nproxy --help); they can be given in NPROXY_... variables
too. A command that is called like a mode goes behind --. NPROXY names the program; default: the nproxy beside this
script, or the one in PATH.
In a shell: alias make='$name clean make'
HELP
}

refuse() {
    printf '%s: %s (see %s --help)\n' "$name" "$1" "$name" >&2
    exit 125
}

# The program that was installed beside this script counts before one in PATH.
nproxy=${0%/*}/nproxy
[ -x "$nproxy" ] || nproxy=nproxy
nproxy=${NPROXY:-$nproxy}
mode=pass
case ${1-} in
-h | --help)
    usage
    exit 0
    ;;
'')
    usage >&2
    exit 125
    ;;
status)
    shift
    exec "$nproxy" --status "$@"
    ;;
pass | passthrough | strip | strip-ansi | stamp | transform | clean | stats | log | watch)
    mode=$1
    shift
    ;;
esac

# Options up to the command are nproxy's own.
options=()
while [ $# -gt 0 ]; do
    case $1 in
    --)
        shift
        break
        ;;
    --pty)
        # Its value may be a word of its own.
        case ${2-} in
        auto | always | never)
            options+=("--pty=$2")
            shift
            ;;
        *) options+=(--pty=always) ;;
        esac
        ;;
    --*=* | --node | --no-pty | --stats | --group | --progress | --banner | --quiet | -q | -v | -vv)
        options+=("$1")
        ;;
    -*) refuse "$1: write a value as --NAME=VALUE" ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || refuse 'no command'

case $mode in
pass | passthrough) ;;
strip | strip-ansi) options+=(--text=strip-ansi) ;;
stamp | transform) options+=(--text=transform) ;;
clean) options+=("--text=strip-ansi,transform") ;;
stats) options+=(--stats) ;;
log) options+=(--tee "./${1##*/}.log" --tee-text=strip-ansi) ;;
watch)
    cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}
    mkdir -p "$cache"
    options+=(--crash-dump "$cache/nproxy")
    ;;
esac
exec "$nproxy" "${options[@]}" -- "$@"
