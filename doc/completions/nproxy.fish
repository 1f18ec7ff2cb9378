complete -c nproxy -l engine -d 'How operations run: io_uring, or epoll where io_uring is not allowed' -r -f -a "auto\t'io_uring if it is allowed, else epoll'
uring\t'io_uring or nothing'
epoll\t'Readiness and non-blocking system calls'"
complete -c nproxy -l pipe-size -d 'Grow pipes to this size, or keep them as they are' -r
complete -c nproxy -l coalesce -d 'The longest that a busy stream waits for more bytes, in microseconds; `auto` is 200, `off` is 0' -r
complete -c nproxy -l pty -d 'Whether the command gets a terminal: if stdout is one, in any case, or only pipes' -r -f -a "auto\t'A terminal if stdout is one'
always\t'A terminal in any case, so that programs flush lines and keep their colours'
never\t'Pipes'"
complete -c nproxy -l stdin -d 'What the command gets as stdin: ours, a relayed copy of it, or nothing' -r -f -a "inherit\t'The command reads our stdin itself'
relay\t'A pipe that nproxy fills from its stdin'
null\t'/dev/null'"
complete -c nproxy -l linger -d 'Silence after which a pipe that outlives the command is left, or `eof` to wait for its end' -r
complete -c nproxy -l signal-exit -d 'When a signal killed the command: die by it too, or exit with 128 + its number' -r -f -a "raise\t'Die by the same signal'
code\t'Exit with 128 + the signal\'s number'"
complete -c nproxy -l text -d 'What is done to the text of a stream: `strip-ansi` removes escape sequences, `transform` puts a timestamp in front of each line' -r -f -a "passthrough\t'Nothing is touched'
strip-ansi\t'Escape sequences are removed'
transform\t'Lines get a prefix'"
complete -c nproxy -l text-streams -d 'Which streams the text modes are for' -r -f -a "stdout\t'The command\'s stdout, or the stream of a filter'
stderr\t'The command\'s stderr'"
complete -c nproxy -l timestamp -d 'Format of the timestamps, as in strftime(3), with %3f for milliseconds' -r
complete -c nproxy -l timestamp-mode -d 'What the timestamps tell: the time of day, the time since the start, or since the line before' -r -f -a "wall\t'The time of day, in UTC'
elapsed\t'Since the start'
delta\t'Since the line before'"
complete -c nproxy -l tee -d 'Copy the streams to a file, a FIFO, `/dev/fd/N`, `unix:PATH` or `tcp:HOST:PORT`; repeatable' -r
complete -c nproxy -l tee-text -d 'Text modes for what goes to the tee files' -r -f -a "passthrough\t'Nothing is touched'
strip-ansi\t'Escape sequences are removed'
transform\t'Lines get a prefix'"
complete -c nproxy -l tee-streams -d 'Which streams go to the tee files' -r -f -a "stdout\t'The command\'s stdout, or the stream of a filter'
stderr\t'The command\'s stderr'"
complete -c nproxy -l tee-full -d 'When a tee file cannot keep up: hold everything up, or drop bytes there and mark the gap' -r -f -a "block\t'The command waits'
drop\t'Bytes are dropped there'"
complete -c nproxy -l monitor -d 'Whose memory is watched: the command\'s own process, all that it started, or its cgroup; `auto` is the cgroup that a limit makes, or else the tree' -r -f -a "auto\t'The cgroup that a limit makes, or else the tree'
off\t'Nothing'
rss\t'The command\'s own process'
tree\t'The command and all that it started'
cgroup\t'The cgroup'"
complete -c nproxy -l attention -d 'Memory from which the user is told; a bare number is MiB' -r
complete -c nproxy -l pressure -d 'Memory from which text modes and most observation are off; a bare number is MiB' -r
complete -c nproxy -l critical -d 'Memory from which the command\'s output is taken at a trickle only; a bare number is MiB' -r
complete -c nproxy -l emergency -d 'Memory from which all output is let out at once; a bare number is MiB' -r
complete -c nproxy -l tick -d 'Shortest time between two looks at the memory; a bare number is milliseconds' -r
complete -c nproxy -l gate -d 'Whether the command may be held back from the critical stage on' -r -f -a "auto\t'Closed in the critical stage, unless that does harm'
off\t'Always open'"
complete -c nproxy -l degrade -d 'Whether text modes are switched off from the pressure stage on' -r -f -a "auto\t'From the pressure stage on'
never\t'Never'"
complete -c nproxy -l memory-high -d 'Slow the command down above this much memory, in a cgroup of its own' -r
complete -c nproxy -l memory-max -d 'Never let the command have more than this much memory, in a cgroup of its own' -r
complete -c nproxy -l rlimit -d 'Set a resource limit for the command, as in `nofile=1024` or `as=2G:unlimited`; repeatable' -r
complete -c nproxy -l memlog -d 'Tell the memory in use on stderr every so many seconds' -r
complete -c nproxy -l observe -d 'How much is recorded of each transfer; never what was in it' -r -f -a "full\t'Sizes, times and waits, and the last 1024 transfers'
summary\t'Sizes, times and waits, and the last 128 transfers'
off\t'Totals only'"
complete -c nproxy -l stats -d 'Report what was moved on stderr at the end' -r -f -a "text\t'A table to read'
json\t'One JSON object'"
complete -c nproxy -l stats-file -d 'Write the report into this file instead, as JSON unless --stats=text is given too' -r
complete -c nproxy -l events -d 'Append what happens to this file or FIFO, as lines of JSON; events that it cannot take are dropped' -r
complete -c nproxy -l progress -d 'A live line on stderr: `auto` only on a terminal that the command does not write to' -r -f -a "auto\t'On a terminal that the command does not write to'
always\t'Wherever stderr goes'
never\t'Not at all'"
complete -c nproxy -l size -d 'How many bytes there will be, for a percentage in the live line' -r
complete -c nproxy -l status -d 'List the running sessions, or the one of this process, and leave; their sockets are in $NPROXY_RUNTIME_DIR, $XDG_RUNTIME_DIR or /tmp' -r
complete -c nproxy -l status-format -d 'How --status writes its list' -r -f -a "text\t'A table to read'
json\t'One JSON object'
prometheus\t'Metrics in the text format of Prometheus'"
complete -c nproxy -l crash-dump -d 'Write a report into this directory when the command dies of a fault, an abort or a kill' -r
complete -c nproxy -l completions -d 'Print the completion script for a shell and leave' -r -f -a "bash\t''
elvish\t''
fish\t''
powershell\t''
zsh\t''"
complete -c nproxy -l group -d 'Run the command in a process group of its own, and forward signals to that group'
complete -c nproxy -l line-numbers -d 'Number the lines'
complete -c nproxy -l tee-append -d 'Append to tee files instead of emptying them'
complete -c nproxy -l tee-strict -d 'Exit with 125 if a copy is not complete'
complete -c nproxy -l banner -d 'Tell on stderr, at the start, what is run and watched'
complete -c nproxy -l no-control -d 'No status socket: --status does not show this session'
complete -c nproxy -s q -l quiet -d 'Only errors on stderr, no notices'
complete -c nproxy -s v -l verbose -d 'Say what is being decided; twice for more (NPROXY_DEBUG=1 is the same as -vv)'
complete -c nproxy -l debug -d 'As -vv'
complete -c nproxy -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nproxy -s V -l version -d 'Print version'
