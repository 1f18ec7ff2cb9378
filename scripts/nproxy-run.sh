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
  log        bytes as they are, and a copy without escape sequences in
             ./COMMAND.log
  watch      as pass, and a crash report in ~/.cache/nproxy if the command
             dies of a fault
  status     no command: the running sessions

  -h, --help  this text

Options are those of nproxy, and written as there (see nproxy --help):
--only-on-failure, --tee FILE or --tee=FILE. A value that may be left out
needs the =, as in --stats=json. NPROXY_... variables hold as well.

A command that is called like a mode goes behind --. NPROXY names the program;
default: the nproxy beside this script, or the one in PATH.
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

# What stands behind an option in nproxy's help: nothing, ..., <VALUE> or [=<VALUE>]. All options are there, so no list
# here has to follow them.
help=
behind() {
    sed -nE "s/^ {2,6}(-[A-Za-z], )?$1([^A-Za-z0-9-].*)?\$/option\2/p" <<<"$help"
}

# Options up to the command are nproxy's own.
options=()
while [ $# -gt 0 ]; do
    case $1 in
    --)
        shift
        break
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    --pty)
        # Its value may be a word of its own, or be left out.
        case ${2-} in
        auto | always | never)
            options+=("--pty=$2")
            shift
            ;;
        *) options+=(--pty=always) ;;
        esac
        ;;
    # Those of one letter take no value. --no-pty and --debug are older words, which the help leaves out.
    --*=* | --no-pty | --debug | -[!-]*) options+=("$1") ;;
    --*[!a-z0-9-]*) refuse "$1: not an option of nproxy" ;;
    --*)
        # What a variable says is another matter: nproxy itself will speak of it.
        [ -n "$help" ] || help=$(unset "${!NPROXY_@}" && "$nproxy" --help 2>/dev/null) ||
            refuse "cannot ask $nproxy for its options"
        case $(behind "$1") in
        '') refuse "$1: not an option of nproxy" ;;
        'option <'*)
            [ $# -gt 1 ] || refuse "$1 needs a value"
            options+=("$1=$2")
            shift
            ;;
        *) options+=("$1") ;;
        esac
        ;;
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
