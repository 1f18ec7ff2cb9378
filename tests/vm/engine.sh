#!/bin/sh
# shellcheck disable=SC2002,SC2016,SC2086,SC2154 # a pipe as source is the point; scripts in quotes are for others
# Which engine runs where io_uring is switched off (kernel.io_uring_disabled, 6.6).

with_uring_disabled() {
    [ -e /proc/sys/kernel/io_uring_disabled ] || skip "this kernel has no kernel.io_uring_disabled"
    echo 2 >/proc/sys/kernel/io_uring_disabled
}
auto_falls_back() {
    with_uring_disabled
    expect sum "$(cat /payload | nproxy | sum)" "$PAYLOAD_SUM"
    nproxy -v true 2>err
    grep -q 'going on with epoll' err || fail "no word of it under -v: $(cat err)"
}
uring_by_name_is_refused() {
    with_uring_disabled
    nproxy --engine=uring echo started >out 2>err
    expect status $? 125
    expect started "$(wc -c <out)" 0
    expect lines "$(wc -l <err)" 1
}
unprivileged_user_falls_back() {
    [ -e /proc/sys/kernel/io_uring_disabled ] || skip "this kernel has no kernel.io_uring_disabled"
    echo 0 >/proc/sys/kernel/io_uring_disabled 2>/dev/null || skip "once 2, it stays 2 until the next boot"
    echo 1 >/proc/sys/kernel/io_uring_disabled
    expect output "$(su user -c 'nproxy echo said')" said
}

if [ -z "$part_is_loaded" ]; then
    check unprivileged_user_falls_back unprivileged_user_falls_back
    check auto_falls_back auto_falls_back
    check uring_by_name_is_refused uring_by_name_is_refused
    # Back on for what comes after, where the kernel lets us.
    [ ! -e /proc/sys/kernel/io_uring_disabled ] || echo 0 >/proc/sys/kernel/io_uring_disabled
fi
