#!/bin/sh
# shellcheck disable=SC2002,SC2016,SC2086,SC2154 # a pipe as source is the point; scripts in quotes are for others
# The memory guard where cgroup v2 rules: limits that throttle, limits that kill, groups that go away, users who may not.

left_over() { find /sys/fs/cgroup -name "nproxy-*"; }

group_is_gone() { expect "groups left" "$(left_over)" ""; }

high_throttles_without_a_kill() {
    nproxy --memory-high=64M --stats=json peer hold 96M 1M 2000 >out 2>err &
    pid=$!
    until [ -n "$(left_over)" ]; do usleep 1000; done
    group=$(left_over)
    expect high "$(cat "$group/memory.high")" 67108864
    # Nothing can be swapped out here, so what is beyond the limit is made slow: it is ended in the middle of that.
    until [ "$(sed -n 's/^high //p' "$group/memory.events")" -gt 0 ]; do usleep 10000; done
    expect "OOM kills" "$(sed -n 's/^oom_kill //p' "$group/memory.events")" 0
    kill -TERM $pid
    wait $pid
    expect status $? 143
    grep -q '"high_events":[1-9]' err || fail "no high events: $(cat err)"
    grep -q '"oom_kills":0' err || fail "kills: $(cat err)"
    group_is_gone
}
max_kills_and_says_so() {
    nproxy --memory-max=64M --stats=json peer hold 128M 1M 2>err >/dev/null
    expect status $? 137
    grep -q 'nproxy: run peer: ended by the OOM killer at --memory-max 64 MiB' err || fail "$(cat err)"
    grep -q '"oom_kills":1' err || fail "$(cat err)"
    group_is_gone
}
max_kills_a_grandchild_and_says_so() {
    nproxy --memory-max=64M sh -c 'peer hold 128M 1M; echo "ended with $?"' 2>err >out
    expect status $? 0
    expect output "$(tail -n 1 out)" "ended with 137"
    grep -q 'the OOM killer ended 1 of its processes' err || fail "$(cat err)"
    group_is_gone
}
within_the_limit_nothing_happens() {
    nproxy --memory-high=64M --memory-max=96M cat /payload 2>err | sum >out
    expect sum "$(cat out)" "$PAYLOAD_SUM"
    expect notices "$(cat err)" ""
    group_is_gone
}
pipes_are_small_where_memory_is() {
    expect "size below a limit of its own" "$(nproxy --memory-max=40M peer pipe-size)" 262144
    expect "size as asked" "$(nproxy --memory-max=40M --pipe-size=1M peer pipe-size)" 1048576
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control
    mkdir /sys/fs/cgroup/small
    echo 40M >/sys/fs/cgroup/small/memory.max
    sh -c 'echo 0 >/sys/fs/cgroup/small/cgroup.procs; nproxy peer pipe-size' >out
    rmdir /sys/fs/cgroup/small
    expect "size in a group" "$(cat out)" 262144
}
an_orphan_outlives_the_group() {
    nproxy --linger=0ms --memory-max=64M sh -c 'sleep 20 >/dev/null 2>&1 & echo $!' >out
    kill -0 "$(cat out)" || fail "the orphan was ended"
    group_is_gone
    kill "$(cat out)"
}
the_cgroup_is_what_is_watched() {
    nproxy --banner --memory-max=64M true 2>err
    grep -q 'memory: cgroup, stages from .* of 64 MiB' err || fail "$(cat err)"
    nproxy --memory-max=64M --pressure=20M peer hold 32M 0 3000 2>err
    grep -q 'memory: pressure from 20 MiB' err || fail "$(cat err)"
}
a_command_that_is_not_there_leaves_no_group() {
    nproxy --memory-max=64M no-such-command 2>/dev/null
    expect status $? 127
    group_is_gone
}
from_within_a_group() {
    # As under a session manager: our own group is not the root, and holds us.
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control
    mkdir -p /sys/fs/cgroup/unit/ours
    echo +memory >/sys/fs/cgroup/unit/cgroup.subtree_control
    sh -c 'echo 0 >/sys/fs/cgroup/unit/ours/cgroup.procs
        nproxy --memory-max=64M grep 0:: /proc/self/cgroup' >out
    status=$?
    rmdir /sys/fs/cgroup/unit/ours /sys/fs/cgroup/unit
    expect status $status 0
    case $(cat out) in
        0::/unit/nproxy-*) ;;
        *) fail "not beside us: $(cat out)" ;;
    esac
}
delegated_user() {
    mkdir -p /sys/fs/cgroup/delegated/ours
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control
    for file in . cgroup.procs cgroup.subtree_control; do chown user "/sys/fs/cgroup/delegated/$file"; done
    chown -R user /sys/fs/cgroup/delegated/ours
    sh -c 'echo 0 >/sys/fs/cgroup/delegated/ours/cgroup.procs
        su user -c "nproxy --memory-max=64M grep 0:: /proc/self/cgroup"' >out 2>err
    status=$?
    sh -c 'echo 0 >/sys/fs/cgroup/cgroup.procs'
    rmdir /sys/fs/cgroup/delegated/ours /sys/fs/cgroup/delegated
    expect "status of $(cat err)" $status 0
    case $(cat out) in
        0::/delegated/nproxy-*) ;;
        *) fail "not beside us: $(cat out)" ;;
    esac
}
user_without_delegation() {
    for flag in --memory-high=64M --memory-max=64M; do
        su user -c "nproxy $flag echo started" >out 2>err
        expect status $? 125
        expect started "$(cat out)" ""
        expect lines "$(wc -l <err)" 1
        grep -q 'systemd-run --user --scope' err || fail "$(cat err)"
    done
    group_is_gone
}
defaults_of_a_small_machine() {
    nproxy --banner true 2>err
    grep -q 'memory: tree, stages from 256 MiB, 512 MiB, ' err || fail "$(cat err)"
}
text_off_and_on() {
    nproxy --text=strip-ansi --attention=16M --pressure=32M --critical=64M --emergency=512M \
        peer grow 80M 40M 500 8000 >out 2>err
    expect status $? 0
    # An emulated machine may pass attention between two samples.
    grep -q '^nproxy: memory: pressure' err || fail "$(cat err)"
    grep -q '^nproxy: memory: critical' err || fail "$(cat err)"
    expect last "$(tail -n 1 err | cut -d ' ' -f 3)" monitoring
    esc=$(printf '\033')
    expect first "$(head -n 1 out)" "line 0 red"
    case $(tail -n 1 out) in
        *"$esc"*) fail "the last line is not stripped" ;;
    esac
    grep -q "$esc" out || fail "no line came through as it was"
}
one_try() {
    # All that it writes stays: a try can lower nothing.
    nproxy --critical=20M --emergency=800M --stats=json peer gather 60M 30M 2>err | wc -c >out
    expect bytes "$(cat out)" 62914560
    grep -q '"gate_closed":1' err || fail "$(cat err)"
    grep -q '"gate_helped":0' err || fail "$(cat err)"
    grep -q 'output is held back to lower it (--gate=off: never)' err || fail "$(cat err)"
}
memory_that_is_there() {
    nproxy --critical=20M --emergency=800M --stats=json peer hold 40M 30M 0 1000 2>err | wc -c >out
    expect bytes "$(cat out)" 31457280
    grep -q '"gate_closed":0' err || fail "$(cat err)"
}
a_sibling_takes_the_room() {
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control
    mkdir -p /sys/fs/cgroup/shared
    echo 200M >/sys/fs/cgroup/shared/memory.max
    sh -c 'echo 0 >/sys/fs/cgroup/shared/cgroup.procs; exec peer hold 60M 0 60000' &
    sibling=$!
    until [ "$(cat /sys/fs/cgroup/shared/memory.current)" -gt 60000000 ]; do usleep 10000; done
    sh -c 'echo 0 >/sys/fs/cgroup/shared/cgroup.procs; exec nproxy peer hold 110M 0 3000' 2>err
    status=$?
    kill $sibling
    wait $sibling
    rmdir /sys/fs/cgroup/shared
    expect "status of $(cat err)" $status 0
    # Neither of the two is near a limit of 200 MiB, but both are.
    grep -q 'memory: emergency, .* of 200 MiB left' err || fail "$(cat err)"
}
a_smaller_group_of_its_own() {
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control
    mkdir -p /sys/fs/cgroup/smaller
    echo 100M >/sys/fs/cgroup/smaller/memory.max
    nproxy sh -c 'echo 0 >/sys/fs/cgroup/smaller/cgroup.procs; exec peer hold 60M 0 4000' 2>err
    status=$?
    rmdir /sys/fs/cgroup/smaller
    expect "status of $(cat err)" $status 0
    grep -q 'memory: pressure from 50 MiB' err || fail "$(cat err)"
}

if [ -z "$part_is_loaded" ]; then
    for test in high_throttles_without_a_kill max_kills_and_says_so max_kills_a_grandchild_and_says_so \
        within_the_limit_nothing_happens pipes_are_small_where_memory_is an_orphan_outlives_the_group the_cgroup_is_what_is_watched \
        a_command_that_is_not_there_leaves_no_group from_within_a_group delegated_user user_without_delegation \
        defaults_of_a_small_machine a_sibling_takes_the_room a_smaller_group_of_its_own; do
        check $test $test
    done
    for NPROXY_ENGINE in uring epoll; do
        export NPROXY_ENGINE
        check "$NPROXY_ENGINE text_off_and_on" text_off_and_on
        check "$NPROXY_ENGINE one_try" one_try
        check "$NPROXY_ENGINE memory_that_is_there" memory_that_is_there
    done
    unset NPROXY_ENGINE
fi
