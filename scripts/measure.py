"""What the bench scripts share: children bounded in time, what they cost, and how figures are told.

Every child is started and waited for by its own pid, is given a time limit, and is killed by that pid
when the limit passes. Figures are medians of rounds in which everything compared takes its turn, because
a machine that is busy with something else is busy for all of them then.
"""

import csv
import errno
import fcntl
import os
import resource
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import termios
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# Another program than the one built here, to be measured in its place.
NPROXY = os.environ.get("NPROXY_BIN", str(TARGET / "release" / "nproxy"))
PEER = str(TARGET / "release" / "examples" / "peer")
# Peers that come from crates.io, as `cargo install --root` leaves them.
CRATES = TARGET / "bench-peers"

# io_uring bounds its kernel workers by the limit on the user's processes: a mistake must not take the machine.
PROCESS_LIMIT = 2000


class Failed(Exception):
    """A child ended badly or not in time; the message says which."""


@dataclass(frozen=True)
class Ended:
    """How a child ended: seconds on the clock when it did, and its user and system time with all its threads'."""

    at: float
    cpu: float


class Child:
    """One process, from posix_spawn(3) to wait4(2)."""

    def __init__(self, argv, stdin=None, stdout=None):
        null = os.open(os.devnull, os.O_RDWR)
        try:
            actions = [
                (os.POSIX_SPAWN_DUP2, null if stdin is None else stdin, 0),
                (os.POSIX_SPAWN_DUP2, null if stdout is None else stdout, 1),
            ]
            # Python ignores SIGPIPE, and a child would inherit that.
            self.pid = os.posix_spawnp(
                argv[0], argv, os.environ, file_actions=actions, setsigdef=[signal.SIGPIPE]
            )
        finally:
            os.close(null)
        self.argv = argv
        self.pidfd = os.pidfd_open(self.pid)

    def reap(self):
        """Waits for a process that has ended."""
        at = time.perf_counter()
        _, status, usage = os.wait4(self.pid, 0)
        os.close(self.pidfd)
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            raise Failed(f"{' '.join(self.argv)}: status {code}")
        return Ended(at, usage.ru_utime + usage.ru_stime)

    def destroy(self):
        os.kill(self.pid, signal.SIGKILL)
        os.wait4(self.pid, 0)
        os.close(self.pidfd)


def finish(children, limit):
    """Waits until all have ended, `limit` seconds at most, and returns what each came to, in their order."""
    deadline = time.monotonic() + limit
    running = {child.pidfd: child for child in children}
    ended = {}
    poll = select.poll()
    for pidfd in running:
        poll.register(pidfd, select.POLLIN)
    try:
        while running:
            left = deadline - time.monotonic()
            ready = poll.poll(max(0, left) * 1000)
            if not ready:
                names = ", ".join(" ".join(child.argv) for child in running.values())
                raise Failed(f"not over after {limit} s: {names}")
            for pidfd, _ in ready:
                poll.unregister(pidfd)
                child = running.pop(pidfd)
                ended[child.pid] = child.reap()
    finally:
        for child in running.values():
            child.destroy()
    return [ended[child.pid] for child in children]


def start(commands):
    """Starts a pipeline, its reader first, so that nothing waits for a process to be made. Returns its processes in
    the order of the commands, and when its writer was started."""
    children = []
    sink = None
    began = 0.0
    for index in reversed(range(len(commands))):
        source, feed = os.pipe() if index > 0 else (None, None)
        began = time.perf_counter()
        children.append(Child(commands[index], stdin=source, stdout=sink))
        for fd in (source, sink):
            if fd is not None:
                os.close(fd)
        sink = feed
    return children[::-1], began


def flow(writer, relay, reader, limit):
    """Runs writer | relay | reader, without the middle one if `relay` is None.

    Returns the seconds from the writer's start until the reader has ended, and what writer, relay and reader came
    to; no relay came to nothing.
    """
    children, began = start([writer, relay, reader] if relay else [writer, reader])
    ended = finish(children, limit)
    return ended[-1].at - began, ended[0], ended[1] if relay else None, ended[-1]


def at_terminal(argv, limit):
    """Runs a command on a terminal of its own that is read at once. Returns the seconds until it has ended and all that
    it wrote is read, and its user and system time."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        fcntl.ioctl(follower, termios.TIOCSCTTY, 0)
        for number in range(3):
            os.dup2(follower, number)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp(argv[0], argv)
    os.close(follower)
    deadline = time.monotonic() + limit
    try:
        while select.select([leader], [], [], max(0, deadline - time.monotonic()))[0]:
            if not os.read(leader, 1 << 16):
                break
        else:
            os.kill(pid, signal.SIGKILL)
    except OSError as error:
        # Nobody has the other end any more.
        if error.errno != errno.EIO:
            raise
    wall = time.perf_counter() - began
    _, status, usage = os.wait4(pid, 0)
    os.close(leader)
    if status != 0:
        raise Failed(f"{' '.join(argv)}: status {os.waitstatus_to_exitcode(status)}")
    return wall, usage.ru_utime + usage.ru_stime


def threads(pid):
    """How many threads a process has at this moment, kernel workers included."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads:")), 0)


def output_of(argv, limit=120):
    """What a command prints."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=limit, check=True, text=True)
    return done.stdout


class Figures:
    """Single measurements under (work, contender, quantity), and their medians."""

    def __init__(self):
        self.values = defaultdict(list)

    def add(self, work, contender, quantity, value):
        self.values[work, contender, quantity].append(value)

    def of(self, work, contender, quantity):
        return self.values.get((work, contender, quantity), [])

    def median(self, work, contender, quantity):
        values = self.of(work, contender, quantity)
        return statistics.median(values) if values else None

    def contenders(self, work):
        return list(dict.fromkeys(name for at, name, _ in self.values if at == work))

    def write_csv(self, path):
        with open(path, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["work", "contender", "quantity", "round", "value"])
            for (work, contender, quantity), values in self.values.items():
                for index, value in enumerate(values):
                    rows.writerow([work, contender, quantity, index + 1, f"{value:.9g}"])


def spread(values, form):
    """Median, smallest and largest."""
    if not values:
        return "–"
    low, middle, high = (form.format(v) for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}–{high})" if len(values) > 1 else middle


def rounds(count, contenders):
    """The order of play: all contenders in each round, each round begun by another one."""
    for index in range(count):
        turn = index % len(contenders)
        yield from contenders[turn:] + contenders[:turn]


def table(head, rows):
    """A Markdown table; every column but the first holds figures."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def say(text):
    """Progress, which is not part of the report."""
    print(text, file=sys.stderr, flush=True)


def prepare():
    """Builds what is measured, unless NPROXY_BIN names it, and bounds what a mistake can do."""
    build = ["cargo", "build", "--quiet", "--release"]
    if "NPROXY_BIN" not in os.environ:
        subprocess.run(build, cwd=ROOT, check=True)
    if "PEER_BIN" not in os.environ:
        subprocess.run([*build, "--example", "peer"], cwd=ROOT, check=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    limit = PROCESS_LIMIT if hard == resource.RLIM_INFINITY else min(PROCESS_LIMIT, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, hard))


def find(program, package, install=False):
    """Whether a peer can be run; installed from Debian if it is missing and that was asked for."""
    if shutil.which(program):
        return True
    if install and os.geteuid() == 0 and shutil.which("apt-get"):
        get = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(get, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ, check=False)
    if shutil.which(program):
        return True
    say(f"skipped: {program} is not installed (Debian: {package})")
    return False


def find_crate(program, crate, version, install=False):
    """The path of a peer from crates.io, or nothing. Built in our target directory if it is missing and that was asked
    for: it never replaces what the system has of that name."""
    path = CRATES / "bin" / program
    if not path.exists() and install:
        say(f"building {crate} {version}")
        get = ["cargo", "install", "--quiet", "--root", str(CRATES), "--version", f"^{version}", crate]
        subprocess.run(get, cwd=ROOT, check=False)
    if path.exists():
        return str(path)
    say(f"skipped: {crate} {version} is not built (with --install it is)")
    return None


def version_of(argv):
    """The first line of what a program says of its version."""
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            timeout=10, text=True, check=False,
        )
        return next((line.strip() for line in done.stdout.splitlines() if line.strip()), argv[0])
    except (OSError, subprocess.TimeoutExpired):
        return argv[0]


def machine(versions, load=None):
    """Where figures come from: machine, kernel, load (at this moment, if none is given), versions."""
    cpu = memory = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemTotal"):
            memory = f"{int(line.split()[1]) / 2**20:.0f} GiB"
    system = os.uname()
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, check=False,
    ).stdout.strip()
    load = " ".join(f"{value:.1f}" for value in (os.getloadavg() if load is None else [load]))
    lines = [
        f"* {cpu}, {len(os.sched_getaffinity(0))} processors, {memory}; {system.sysname} {system.release}",
        f"* {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}; load at the start: {load}",
        f"* nproxy at {revision or 'an unknown revision'}; " + "; ".join(versions),
    ]
    return "\n".join(lines) + "\n"


def use_processors(count):
    """Leaves this script and all that it starts so many processors, the first ones: other machines are smaller."""
    if count is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def size(word):
    """A byte count; K, M and G are powers of 1024, as in the peer."""
    units = {"K": 10, "M": 20, "G": 30}
    shift = units.get(word[-1:].upper(), 0)
    return int(word[:-1] if shift else word) << shift


def size_name(count):
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift and count % (1 << shift) == 0:
            return f"{count >> shift} {unit}"
    return f"{count} B"
