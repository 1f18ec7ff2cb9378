complete -c nproxy -l tee -d 'Copy the output to a file, FIFO, socket, |COMMAND' -r
complete -c nproxy -l tee-text -d 'Edit the text of the copies: the modes of --text' -r -f -a "passthrough\t'Nothing; goes with no other mode (`off` means the same)'
strip-ansi\t'Escape sequences (colours, cursor movements, titles) are removed'
screen\t'Lines are what the screen showed at last: progress that redraws itself leaves how it ended'
transform\t'Each line gets a prefix, by default a timestamp'"
complete -c nproxy -l tee-streams -d 'Which streams are copied' -r -f -a "stdout\t'The command\'s stdout, or the stream of a filter'
stderr\t'The command\'s stderr'"
complete -c nproxy -l tee-full -d 'If a copy is too slow: block (wait) or drop bytes' -r -f -a "block\t'Everything waits for the copy, and so does the command'
drop\t'The copy loses bytes; the gap is marked in it and counted'"
complete -c nproxy -l tee-output-error -d 'If the output fails: exit, or warn and complete the copies' -r -f -a "exit\t'The copies end with the output, and one that cannot be opened is an error'
warn\t'The copies are completed, and one that cannot be opened is left out'"
complete -c nproxy -l text -d 'Edit the output: strip-ansi, screen, transform' -r -f -a "passthrough\t'Nothing; goes with no other mode (`off` means the same)'
strip-ansi\t'Escape sequences (colours, cursor movements, titles) are removed'
screen\t'Lines are what the screen showed at last: progress that redraws itself leaves how it ended'
transform\t'Each line gets a prefix, by default a timestamp'"
complete -c nproxy -l text-streams -d 'Which streams --text edits' -r -f -a "stdout\t'The command\'s stdout, or the stream of a filter'
stderr\t'The command\'s stderr'"
complete -c nproxy -l timestamp -d 'Format of the timestamps, as in strftime(3)' -r
complete -c nproxy -l timestamp-mode -d 'What the timestamps show: wall, elapsed or delta' -r -f -a "wall\t'The time of day, in UTC or, with --local-time, in the local zone'
elapsed\t'The time since the start'
delta\t'The time since the line before'"
complete -c nproxy -l prefix -d 'Put a text such as `{stream}: ` before each line' -r
complete -c nproxy -l c1 -d 'What raw bytes from 0x80 to 0x9F are: text or control' -r -f -a "text\t'Text of another encoding'
control\t'Controls in one byte, where UTF-8 does not account for them'"
complete -c nproxy -l pty -d 'Give the command a terminal: auto, always or never' -r -f -a "auto\t'If stdout or stderr is a terminal, for those of the command\'s streams that are one'
always\t'In any case, so that programs flush each line and keep their colours'
never\t'The command gets pipes'"
complete -c nproxy -l stdin -d 'What the command reads: inherit, relay or null' -r -f -a "inherit\t'The command reads nproxy\'s stdin itself'
relay\t'The command reads a pipe that nproxy fills from its own stdin'
null\t'The command reads /dev/null'"
complete -c nproxy -l linger -d 'How long to wait for processes that are left over' -r
complete -c nproxy -l idle-timeout -d 'End a command that prints nothing for this long' -r
complete -c nproxy -l heartbeat -d 'Print a line this often while nothing comes' -r
complete -c nproxy -l signal-exit -d 'After death by a signal: raise it, or exit 128+N' -r -f -a "raise\t'nproxy dies by the same signal'
code\t'nproxy exits with 128 + the number of the signal'"
complete -c nproxy -l memory-max -d 'Kill the command above this much memory (cgroup v2)' -r
complete -c nproxy -l memory-high -d 'Slow the command down above this much (cgroup v2)' -r
complete -c nproxy -l rlimit -d 'Set a resource limit such as nofile=1024; repeatable' -r
complete -c nproxy -l monitor -d 'Watch whose memory: auto, off, rss, tree or cgroup' -r -f -a "auto\t'The cgroup, if --memory-high or --memory-max makes one, or else the tree'
off\t'Nobody\'s: memory is not watched'
rss\t'The command\'s own process'
tree\t'The command and all processes that it started'
cgroup\t'All processes of the cgroup that the command is in'"
complete -c nproxy -l attention -d 'Print a notice from this much memory on' -r
complete -c nproxy -l pressure -d 'Switch --text off from this much memory on' -r
complete -c nproxy -l critical -d 'Slow the output down from this much memory on' -r
complete -c nproxy -l emergency -d 'Hold nothing back from this much on' -r
complete -c nproxy -l tick -d 'Shortest time between two samples of the memory; a bare number is milliseconds' -r
complete -c nproxy -l gate -d 'Whether output may be slowed down from the critical stage on' -r -f -a "auto\t'Tried in the critical stage, and given up where it does not help'
off\t'Never'"
complete -c nproxy -l degrade -d 'Whether --text is switched off from the pressure stage on' -r -f -a "auto\t'From the pressure stage on'
never\t'Never'"
complete -c nproxy -l memlog -d 'Print the memory in use on stderr every so many seconds; 0 means never' -r
complete -c nproxy -l node-max-old -d 'What V8 may keep, in MiB (--max-old-space-size), with --node' -r
complete -c nproxy -l stats -d 'Print transfer statistics to stderr at exit' -r -f -a "text\t'A table to read'
json\t'One JSON object'"
complete -c nproxy -l stats-file -d 'Write the statistics to a file, as JSON' -r
complete -c nproxy -l progress -d 'Show a progress line on stderr' -r -f -a "auto\t'If stderr is a terminal that the command does not write to'
always\t'Wherever stderr goes'
never\t'Not at all'"
complete -c nproxy -l progress-name -d 'Name in front of the progress line' -r
complete -c nproxy -l progress-interval -d 'How often the progress line changes' -r
complete -c nproxy -l size -d 'Expected size of what comes, for a percentage' -r
complete -c nproxy -l status -d 'List all running sessions, or one, and exit' -r
complete -c nproxy -l status-format -d 'Format of --status: text, json or prometheus' -r -f -a "text\t'A table to read'
json\t'One JSON object'
prometheus\t'Metrics in the text format of Prometheus'"
complete -c nproxy -l events -d 'Append what happens to a file, as lines of JSON' -r
complete -c nproxy -l crash-dump -d 'Write a report to DIR if the command crashes' -r
complete -c nproxy -l observe -d 'How much is recorded of the transfers; never their content' -r -f -a "full\t'Sizes, times and waits, and the last 1024 transfers one by one'
summary\t'Sizes, times and waits, and the last 128 transfers one by one'
off\t'Totals only'"
complete -c nproxy -l engine -d 'How bytes are moved: auto, uring or epoll' -r -f -a "auto\t'io_uring where it is allowed, else epoll'
uring\t'io_uring or nothing'
epoll\t'Readiness and non-blocking system calls'"
complete -c nproxy -l limit-rate -d 'Relay at most so many bytes a second, each stream' -r
complete -c nproxy -l pipe-size -d 'Grow pipes to this size, or keep them as they are' -r
complete -c nproxy -l coalesce -d 'The longest that a busy stream waits for more bytes, in microseconds' -r
complete -c nproxy -l completions -d 'Print the completion script for a shell and exit' -r -f -a "bash\t''
elvish\t''
fish\t''
powershell\t''
zsh\t''"
complete -c nproxy -l tee-append -d 'Append to the files instead of emptying them'
complete -c nproxy -l tee-strict -d 'Exit with 125 if a copy is not complete'
complete -c nproxy -l local-time -d 'Timestamps in the local time zone instead of UTC'
complete -c nproxy -l line-numbers -d 'Number the lines, each stream\'s by themselves'
complete -c nproxy -l only-on-failure -d 'Show output only if the command fails'
complete -c nproxy -l group -d 'Run the command in a process group of its own and forward signals to the whole group'
complete -c nproxy -l banner -d 'Print on stderr at the start what is run and watched'
complete -c nproxy -l node -d 'Watch the V8 heaps of Node.js processes too'
complete -c nproxy -l progress-lines -d 'Count lines instead of bytes'
complete -c nproxy -l no-control -d 'Do not let --status see this session'
complete -c nproxy -s q -l quiet -d 'Print only errors on stderr, no notices'
complete -c nproxy -s v -l verbose -d 'Explain on stderr what is decided; twice for more'
complete -c nproxy -l debug -d 'The same as -vv'
complete -c nproxy -s h -d 'Print this summary of the usual options and exit'
complete -c nproxy -l help -d 'Print all options, their values and variables, and exit'
complete -c nproxy -s V -l version -d 'Print the version and exit'
