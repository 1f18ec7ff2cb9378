#!/bin/sh
# shellcheck disable=SC2046 # the arguments are words
# scripts/bench-guard in cgroup v2, with whole programs from the host (see `place_programs` in scripts/vm-test). It is a bench,
# not a test: its tables go to the console, and whoever asked reads them.

export HOME=/tmp TMPDIR=/tmp
mount -o remount,size=2G /tmp
# Semaphores of Python's pools are files there.
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
NPROXY_BIN=/bin/nproxy PEER_BIN=/bin/peer python3 /nproxy/scripts/bench-guard $(cat /nproxy/guard-arguments)
echo "guard: status $?"
