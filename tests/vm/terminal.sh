#!/bin/sh
# shellcheck disable=SC2016,SC2059,SC2086 # scripts in quotes are for others; keys are escapes for printf
# The terminal's core: modes, keys that are signals, stop and foreground, what is typed ahead, the end of input, and each
# stream for itself. `peer terminal` is the terminal: what is written to fd 3 is typed, and `screen` is what is shown.

on_terminal() { # COMMAND...
    mkfifo keys
    # What a script starts in the background ignores these two.
    peer with default=INT default=QUIT -- peer terminal "$@" <keys >screen 2>&1 &
    terminal=$!
    exec 3>keys
}
interactive() { on_terminal sh -c 'tty >name; PS1="ready> " TERM=dumb HISTFILE= exec sh -i'; shown 'ready> ' 1; }
# Once a command that the shell has started, or one behind nproxy, has the terminal: the shell's own line editing is raw.
cooked() { until stty -a <"$(cat name)" | grep -q -e ' icanon'; do usleep 20000; done; }
raw() { until stty -a <"$(cat name)" | grep -q -e '-icanon'; do usleep 20000; done; }
press() { printf "$1" >&3; }
# Waits until the screen has shown a text so often. The time limit of the test is this one's too.
shown() { # TEXT [TIMES]
    until [ "$(grep -oF -- "$1" screen | wc -l)" -ge "${2:-1}" ]; do usleep 20000; done
}
exists() { until [ -e "$1" ]; do usleep 20000; done; }
ended() { # STATUS
    wait $terminal
    expect "status, with $(tr '\r\n' '  ' <screen | tail -c 300)" $? "$1"
}
# A script that looks at the modes of its terminal before and after.
around() { on_terminal sh -c "tty >name; stty -a >before; $1; status=\$?; stty -a >after; exit \$status"; }
modes_are_back() { cmp before after || fail "$(cat before after)"; }

a_line_and_its_end() {
    around 'nproxy cat'
    exists before
    press 'ab\177c\n'
    shown ac
    press '\004'
    ended 0
    modes_are_back
}
keys_are_signals() {
    around 'trap : INT QUIT; ulimit -c 0; nproxy sh -c "echo one; exec sleep 60"; echo $?; nproxy sh -c "echo two; exec sleep 60"; echo $?; false'
    shown one
    press '\003'
    shown 130
    shown two
    press '\034'
    shown 131
    ended 1
    modes_are_back
}
modes_go_back() {
    around 'nproxy sh -c "stty raw -echo; echo raw; kill -KILL \$\$"'
    ended 137
    modes_are_back
}
modes_go_back_after_a_signal() {
    around 'nproxy sh -c "stty raw -echo; echo \$PPID >parent; exec cat"'
    exists parent
    # The parent of the command is its monitor, and the parent of that is nproxy.
    until [ "$(wc -c <parent)" -gt 1 ]; do usleep 20000; done
    kill -TERM "$(awk '/^PPid/ { print $2 }' "/proc/$(cat parent)/status")"
    ended 143
    modes_are_back
}
modes_are_followed() {
    around 'nproxy sh -c "stty raw -echo; dd bs=1 count=3 2>/dev/null | od -c; stty sane"'
    exists before
    raw
    press 'a\003\004'
    shown '003' 1
    ended 0
}
left_as_the_command_leaves_them() {
    around 'nproxy stty -echo cols 133'
    ended 0
    grep -q -e ' -echo ' after || fail "$(cat after)"
    grep -q 'columns 133' after || fail "$(cat after)"
}
a_password_is_not_shown() {
    on_terminal nproxy sh -c 'stty -echo; printf "password: "; read word; stty echo; echo; echo got $word'
    shown 'password: '
    press 'secret\n'
    ended 0
    expect screen "$(tr -d '\r' <screen)" "$(printf 'password: \ngot secret')"
}
stop_and_foreground() {
    interactive
    press 'nproxy cat\n'
    cooked
    press 'one\n'
    shown one 2
    press '\032'
    shown Stopped
    shown 'ready> ' 2
    raw
    press 'fg\n'
    cooked
    press 'two\n'
    shown two 2
    press '\003'
    shown 'ready> ' 3
    press 'echo status=$?\n'
    shown status=130
    press 'exit 7\n'
    ended 7
}
background() {
    interactive
    press 'nproxy cat &\n'
    shown 'ready> ' 2
    until grep -q 'Stopped' screen; do press 'jobs\n'; usleep 200000; done
    raw
    press 'fg\n'
    cooked
    press 'word\n'
    shown word 2
    press '\004'
    press 'exit 7\n'
    ended 7
}
typed_ahead_is_the_next_readers() {
    on_terminal sh -c 'nproxy sh -c "read x; echo got \$x; touch at; until [ -e go ]; do usleep 10000; done"; read y; echo then $y'
    press 'one\ntwo\n'
    exists at
    shown two
    touch go
    ended 0
    shown 'got one'
    shown 'then two'
}
end_of_input_typed_ahead() {
    on_terminal sh -c 'nproxy sh -c "touch at; until [ -e go ]; do usleep 10000; done; cat; echo ended"'
    exists at
    press 'x\n\004'
    touch go
    ended 0
    shown ended
}
each_stream_for_itself() {
    echo 'for fd in 0 1 2; do if test -t $fd; then echo $fd yes >>said; else echo $fd no >>said; fi; done' >ask
    on_terminal sh -c 'nproxy sh ask; echo >>said; nproxy sh ask >log; echo >>said; nproxy sh ask </dev/null 2>log; echo >>said; echo | nproxy sh ask 2>&1 | cat'
    ended 0
    expect streams "$(tr '\n' ' ' <said)" "0 yes 1 yes 2 yes  0 yes 1 no 2 yes  0 no 1 yes 2 no  0 no 1 no 2 no "
}
every_byte() {
    # Several times what a terminal holds, and no more: every byte of it is emulated.
    seq 1 60000 >bytes
    on_terminal sh -c 'stty -opost; nproxy cat bytes'
    ended 0
    expect sum "$(sum <screen)" "$(sum <bytes)"
}
the_window_is_closed() {
    on_terminal nproxy sh -c 'trap "echo >gone; exit" HUP; echo ready; while :; do usleep 10000; done'
    shown ready
    kill -KILL $terminal
    exists gone
}
without_ptmx() {
    on_terminal unshare -m sh -c 'mount -t tmpfs none /dev/pts; mount -o bind /dev/null /dev/ptmx; nproxy -v test -t 1; echo auto $?; nproxy --pty=always true; echo always $?'
    ended 0
    shown 'going on with pipes'
    shown 'auto 1'
    shown 'always 125'
}

for NPROXY_ENGINE in uring epoll; do
    [ -n "$part_is_loaded" ] && break
    export NPROXY_ENGINE
    for test in a_line_and_its_end keys_are_signals modes_go_back modes_go_back_after_a_signal modes_are_followed \
        left_as_the_command_leaves_them a_password_is_not_shown stop_and_foreground background \
        typed_ahead_is_the_next_readers end_of_input_typed_ahead each_stream_for_itself every_byte the_window_is_closed \
        without_ptmx; do
        check "$NPROXY_ENGINE $test" $test
    done
done
unset NPROXY_ENGINE
