#!/bin/sh
# shellcheck disable=SC2002,SC2016,SC2086,SC2154 # a pipe as source is the point; scripts in quotes are for others
# Relays, signals and exit status, on whichever engine NPROXY_ENGINE names.

filter() { expect sum "$(cat /payload | nproxy | sum)" "$PAYLOAD_SUM"; }
wrap_stdout() { expect sum "$(nproxy cat /payload | sum)" "$PAYLOAD_SUM"; }
wrap_stderr() {
    nproxy sh -c 'cat /payload >&2' 2>err >out
    expect stderr "$(sum <err)" "$PAYLOAD_SUM"
    expect stdout "$(wc -c <out)" 0
}
both_streams() {
    nproxy sh -c 'cat /payload >&2 & cat /payload; wait' 2>err | sum >out
    expect stdout "$(cat out)" "$PAYLOAD_SUM"
    expect stderr "$(sum <err)" "$PAYLOAD_SUM"
}
file_sink() {
    nproxy cat /payload >out
    expect sum "$(sum <out)" "$PAYLOAD_SUM"
}
appending_sink() {
    echo first >out
    nproxy cat /payload >>out
    expect head "$(head -n 1 out)" first
    expect rest "$(tail -n +2 out | sum)" "$PAYLOAD_SUM"
}
file_source() {
    cp /payload in
    expect sum "$(nproxy <in | sum)" "$PAYLOAD_SUM"
    nproxy <in >copy
    expect copy "$(sum <copy)" "$PAYLOAD_SUM"
}
stdin_relay() { expect sum "$(cat /payload | nproxy --stdin=relay cat | sum)" "$PAYLOAD_SUM"; }
one_file_keeps_order() {
    nproxy sh -c 'i=0; while [ $i -lt 300 ]; do echo $i; echo $i >&2; i=$((i+1)); done' >out 2>&1
    expect lines "$(wc -l <out)" 600
    expect order "$(uniq -c out | awk '$1 != 2' | wc -l)" 0
}
socket_source() {
    nc -l -p 7001 -e sh -c 'nproxy >/tmp/out' &
    until netstat -ltn | grep -q 7001; do usleep 1000; done
    cat /payload | nc -w 5 127.0.0.1 7001 >/dev/null 2>&1
    wait
    expect sum "$(sum <out)" "$PAYLOAD_SUM"
}
socket_sink() {
    nc -l -p 7002 -e nproxy cat /payload &
    until netstat -ltn | grep -q 7002; do usleep 1000; done
    nc 127.0.0.1 7002 </dev/null | sum >out
    expect sum "$(cat out)" "$PAYLOAD_SUM"
}
slow_reader() { expect sum "$(nproxy cat /payload | { sleep 2; cat; } | sum)" "$PAYLOAD_SUM"; }
trickling_writer() {
    expect output "$(sh -c 'for i in 1 2 3 4 5; do echo $i; usleep 50000; done' | nproxy | tr '\n' ' ')" "1 2 3 4 5 "
}
reader_leaves() { expect lines "$(nproxy yes | head -n 100 | wc -l)" 100; }
idle_reader_leaves() {
    # The writer says one line and then nothing: nproxy learns from the sink alone that nobody reads any more.
    mkfifo source
    { echo one; exec sleep 25; } >source &
    writer=$!
    expect line "$(nproxy <source | head -n 1)" one
    kill $writer || fail "nproxy stayed until the writer had ended"
}
exit_status() {
    nproxy sh -c 'exit 7'
    expect status $? 7
}
not_found() {
    nproxy no-such-command 2>err
    expect status $? 127
    expect lines "$(wc -l <err)" 1
}
death_by_signal() {
    nproxy sh -c 'kill -KILL $$'
    expect status $? 137
}
signal_forwarded() {
    nproxy sh -c 'trap "echo got it; exit 3" TERM; echo ready; while :; do usleep 10000; done' >out &
    pid=$!
    until grep -q ready out; do usleep 10000; done
    kill -TERM $pid
    wait $pid
    expect status $? 3
    grep -q 'got it' out || fail "the child saw no SIGTERM"
}
pipe_outlives_the_child() {
    nproxy --linger=100ms sh -c 'sleep 20 & until grep -q sleep /proc/$!/comm; do :; done; echo said' >out 2>err
    expect status $? 0
    expect output "$(cat out)" said
    grep -q 'pid [0-9]* (sleep 20) holds' err || fail "no notice: $(cat err)"
}
full_device() {
    nproxy seq 1 1000 >/dev/full 2>err
    expect status $? 125
    grep -q 'No space left' err || fail "$(cat err)"
}
text_strip() {
    has '--text' || skip "no --text yet"
    expect output "$(printf 'a\033[31mred\033[0mb\n' | nproxy --text=strip-ansi)" aredb
}
text_numbers() {
    has '--line-numbers' || skip "no --line-numbers yet"
    expect lines "$(nproxy --text=transform --line-numbers --timestamp= seq 1 1000 | grep -c .)" 1000
}

for NPROXY_ENGINE in uring epoll; do
    [ -n "$part_is_loaded" ] && break
    export NPROXY_ENGINE
    for test in filter wrap_stdout wrap_stderr both_streams file_sink appending_sink file_source stdin_relay \
        one_file_keeps_order socket_source socket_sink slow_reader trickling_writer reader_leaves idle_reader_leaves \
        exit_status not_found death_by_signal signal_forwarded pipe_outlives_the_child full_device \
        text_strip text_numbers; do
        check "$NPROXY_ENGINE $test" $test
    done
done
unset NPROXY_ENGINE
