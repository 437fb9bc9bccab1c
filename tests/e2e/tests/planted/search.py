"""Looks for secrets without holding them: the patterns come masked, and so does what is searched.

search.py PATTERNS [--root DIR] [--pids all|1,2,…] [--capture FILE]

A line of PATTERNS is a name and a masked pattern in hexadecimal digits. Prints one line for each
find, and at the end how much was looked at."""
import os, re, stat, sys

MASK = bytes(byte ^ 0x55 for byte in range(256))
PIECE, OVERLAP = 4 << 20, 512
SKIPPED = {"proc", "sys", "usr", "dev"}

patterns = [(name, bytes.fromhex(text)) for name, text in (line.split() for line in open(sys.argv[1]))]
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
counts = {"files": 0, "processes": 0, "refused": 0, "bytes": 0}


def look(data, kind, where):
    counts["bytes"] += len(data)
    masked = data.translate(MASK)
    for name, pattern in patterns:
        if pattern in masked:
            print(f"FOUND {name} in {kind} {where}")


def pieces(read, start, end):
    while start < end:
        data = read(min(PIECE + OVERLAP, end - start), start)
        if not data:
            return
        yield data
        start += PIECE


def files(root):
    for here, directories, names in os.walk(root):
        if here == root:
            directories[:] = [name for name in directories if name not in SKIPPED]
        for name in directories + names:
            path = os.path.join(here, name)
            look(os.fsencode(name), "file", path)
            try:
                found = os.lstat(path)
                if stat.S_ISLNK(found.st_mode):
                    look(os.fsencode(os.readlink(path)), "file", path)
                if not stat.S_ISREG(found.st_mode):
                    continue
                with open(path, "rb", buffering=0) as file:
                    counts["files"] += 1
                    for data in pieces(lambda size, at: os.pread(file.fileno(), size, at), 0, found.st_size):
                        look(data, "file", path)
            except OSError:
                counts["refused"] += 1


def memory(pid):
    with open(f"/proc/{pid}/maps") as maps:
        regions = [re.match(r"(\w+)-(\w+) (r)?.*?(\[v\w+\])?$", line.strip()) for line in maps]
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for region in regions:
            if not region or not region[3] or region[4]:
                continue
            try:
                start, end = int(region[1], 16), int(region[2], 16)
                for data in pieces(lambda size, at: os.pread(mem.fileno(), size, at), start, end):
                    look(data, "memory", f"{pid} {region[1]}")
            except (OSError, OverflowError):
                pass


def process(pid):
    for kind in ["environ", "cmdline", "comm", "status"]:
        try:
            with open(f"/proc/{pid}/{kind}", "rb") as file:
                look(file.read(), kind, pid)
        except OSError:
            counts["refused"] += 1
    try:
        memory(pid)
        counts["processes"] += 1
    except OSError:
        counts["refused"] += 1


if "--root" in options:
    files(options["--root"])
pids = options.get("--pids", "")
own = str(os.getpid())
for pid in os.listdir("/proc") if pids == "all" else pids.split(","):
    if pid.isdigit() and pid != own:
        process(pid)
if "--capture" in options:
    with open(options["--capture"], "rb") as capture:
        look(capture.read(), "capture", options["--capture"])
print("LOOKED AT", " ".join(f"{name}={count}" for name, count in counts.items()))
