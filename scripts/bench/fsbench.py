#!/usr/bin/env python3
"""Measures a directory as programs use it: one line per figure, `LABEL NAME VALUE UNIT`.

    fsbench.py LABEL DIR [--quick] [--seq MiB] [--files N] [--only NAME,NAME] [--tree DIR]
    fsbench.py --goals OWNLABEL FILE...       a table of medians, and how much of its goal OWNLABEL reaches

Higher is better, unless the unit is s. Needs fio, git and tar. The corpus is made from a fixed seed in the temporary
directory. The page cache of a file under test is dropped with posix_fadvise, so reads reach the filesystem.
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

CORPUS = os.path.join(tempfile.gettempdir(), "kilofs-fsbench-corpus")
BLOCK = 128 << 10
SETTLE_SECONDS = 1.1
GIT = dict(
    GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null",
    GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*",
    GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@a", GIT_AUTHOR_DATE="1700000000 +0000",
    GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@a", GIT_COMMITTER_DATE="1700000000 +0000",
)


def run(*command, **options):
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    return result.stdout


def drop_cache(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def make_corpus(tree):
    """A source tree of 2,400 files, its tar, and a git repository of it."""
    if os.path.exists(f"{CORPUS}/done"):
        return
    shutil.rmtree(CORPUS, ignore_errors=True)
    os.makedirs(CORPUS)
    if tree:
        shutil.copytree(tree, f"{CORPUS}/tree", symlinks=True)
    else:
        make_tree(f"{CORPUS}/tree")
    environment = dict(os.environ, **GIT)
    run("tar", "cf", f"{CORPUS}/tree.tar", "-C", CORPUS, "tree")
    work = f"{CORPUS}/worktree"
    shutil.copytree(f"{CORPUS}/tree", work, symlinks=True)
    run("git", "init", "-q", work, env=environment)
    run("git", "-C", work, "add", "-A", env=environment)
    run("git", "-C", work, "commit", "-qm", "x", env=environment)
    run("git", "clone", "-q", "--bare", work, f"{CORPUS}/repo.git", env=environment)
    shutil.rmtree(work)
    open(f"{CORPUS}/done", "w").close()


def make_tree(root):
    dice = random.Random(42)
    letters = "abcdefghijklmnopqrstuvwxyz_"
    words = ["".join(dice.choice(letters) for _ in range(dice.randint(2, 11))) for _ in range(4000)]
    for directory in range(120):
        path = f"{root}/{words[directory % 20]}/{words[directory]}"
        os.makedirs(path, exist_ok=True)
        for number in range(20):
            length = min(400_000, int(dice.lognormvariate(8.1, 1.5)))
            text = " ".join(dice.choice(words) for _ in range(length // 7 + 1))[:length]
            with open(f"{path}/{words[dice.randrange(4000)]}{number}.rs", "w") as file:
                file.write("\n".join(text[i:i + 70] for i in range(0, len(text), 70)))


class Bench:
    """One directory under test; each public method measures one group of figures."""

    groups = ("seq", "overwrite", "small", "rand", "fsyncs", "tree", "git", "sqlite")

    def __init__(self, label, directory, options):
        self.label, self.options = label, options
        self.dir = os.path.join(directory, "fsbench.tmp")
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)

    def put(self, name, value, unit):
        print(self.label, name, f"{value:.3f}", unit, flush=True)

    def rate(self, name, count, unit, action):
        start = time.perf_counter()
        action()
        self.put(name, count / (time.perf_counter() - start), unit)

    def seconds(self, name, action):
        start = time.perf_counter()
        result = action()
        self.put(name, time.perf_counter() - start, "s")
        return result

    def seq(self):
        path, dice = f"{self.dir}/seq", random.Random(1)
        blocks = [dice.randbytes(BLOCK) for _ in range(64)]
        count = self.options.seq * 8
        buffer = bytearray(BLOCK)

        def write():
            fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o644)
            for i in range(count):
                os.write(fd, blocks[i & 63])
            os.fsync(fd)
            os.close(fd)

        def read(check):
            with open(path, "rb", buffering=0) as file:
                i = 0
                while file.readinto(buffer):
                    if check and i % 97 == 0 and buffer != blocks[i & 63]:
                        raise ValueError("what was read is not what was written")
                    i += 1
            assert i == count, (i, count)

        self.rate("seqwrite", self.options.seq, "MiB/s", write)
        drop_cache(path)
        self.rate("seqread", self.options.seq, "MiB/s", lambda: read(True))
        self.rate("reread_cached", self.options.seq, "MiB/s", lambda: read(False))
        os.unlink(path)

    def overwrite(self):
        path, count = f"{self.dir}/overwrite", 64 * 8

        def fill(mode):
            block = os.urandom(BLOCK)
            with open(path, mode, buffering=0) as file:
                for _ in range(count):
                    file.write(block)
                os.fsync(file.fileno())

        fill("wb")
        self.rate("overwrite", 64, "MiB/s", lambda: fill("r+b"))
        os.unlink(path)

    def small(self):
        root, content, count = f"{self.dir}/small", os.urandom(4096), self.options.files
        names = [f"{root}/{i:05d}" for i in range(count)]
        os.mkdir(root)

        def create():
            for name in names:
                fd = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644)
                os.write(fd, content)
                os.close(fd)

        def scan():
            assert sum(entry.stat().st_size == 4096 for entry in os.scandir(root)) == count

        def read():
            for name in names:
                with open(name, "rb", buffering=0) as file:
                    if file.read(8192) != content:
                        raise ValueError("what was read is not what was written")

        def miss():
            for i in range(count // 5):
                assert not os.path.exists(f"{root}/nope{i}")

        self.rate("create4k", count, "files/s", create)
        self.rate("stat", count, "ops/s", lambda: [os.stat(name) for name in names])
        time.sleep(SETTLE_SECONDS)
        self.rate("scandir_stat", count, "files/s", scan)
        self.rate("read4k", count, "files/s", read)
        self.rate("rename", count, "ops/s", lambda: [os.rename(name, f"{name}r") for name in names])
        self.rate("unlink", count, "files/s", lambda: [os.unlink(f"{name}r") for name in names])
        self.rate("mkdir", count // 5, "ops/s", lambda: [os.mkdir(f"{root}/d{i}") for i in range(count // 5)])
        self.rate("stat_enoent", count // 5, "ops/s", miss)
        shutil.rmtree(root)

    def rand(self):
        path, size = f"{self.dir}/fio", 16 if self.options.quick else 64
        with open(path, "wb", buffering=0) as file:
            for _ in range(size):
                file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())
        jobs = (
            ("randread4k", "randread", size, []),
            ("randwrite4k", "randwrite", size, ["--end_fsync=1"]),
            ("randrw4k_4jobs", "randrw", size // 4, ["--numjobs=4", "--group_reporting", "--end_fsync=1"]),
        )
        for name, kind, amount, extra in jobs:
            output = run(
                "fio", "--name=x", f"--filename={path}", f"--rw={kind}", "--bs=4k", f"--size={size}M", "--ioengine=psync",
                "--invalidate=1", "--randseed=7", "--output-format=json", f"--io_size={amount}M", "--fadvise_hint=random", *extra,
            )
            job = json.loads(output)["jobs"][0]
            done = job["read"]["total_ios"] + job["write"]["total_ios"]
            millis = job["job_runtime"] / (4 if "4jobs" in name else 1)
            self.put(name, done / (millis / 1000), "iops")
        os.unlink(path)

    def fsyncs(self):
        path, count, block = f"{self.dir}/fsync", 200, os.urandom(4096)
        fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)

        def write():
            for i in range(count):
                os.pwrite(fd, block, i * 4096)
                os.fsync(fd)

        self.rate("write4k_fsync", count, "ops/s", write)
        os.close(fd)
        os.unlink(path)

    def tree(self):
        tree = f"{self.dir}/tree"
        self.seconds("tar_x", lambda: run("tar", "xf", f"{CORPUS}/tree.tar", "-C", self.dir))
        time.sleep(SETTLE_SECONDS)
        self.seconds("du_walk", lambda: run("du", "-s", tree))
        self.seconds("tar_c", lambda: run("sh", "-c", f"tar cf - -C {self.dir} tree | wc -c"))
        self.seconds("cp_r", lambda: run("cp", "-r", tree, f"{tree}2"))
        self.seconds("rm_rf", lambda: run("rm", "-rf", tree, f"{tree}2"))

    def git(self):
        environment, clone = dict(os.environ, **GIT), f"{self.dir}/git"
        source = f"{CORPUS}/repo.git"
        self.seconds("git_clone", lambda: run("git", "clone", "-q", "--no-local", source, clone, env=environment))
        run("git", "-C", clone, "status", env=environment)
        time.sleep(SETTLE_SECONDS)
        state = self.seconds("git_status", lambda: run("git", "-C", clone, "status", "--porcelain", env=environment))
        assert state == b"", state[:200]
        shutil.rmtree(clone)

    def sqlite(self):
        path, dice = f"{self.dir}/db", random.Random(3)
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("create table t(a integer primary key, b text, c blob)")
        database.execute("create index i on t(b)")

        def insert(first, count):
            for i in range(count):
                database.execute("insert into t values(?, ?, ?)", (first + i, f"{dice.random():.12f}", b"x" * 100))

        def bulk():
            database.execute("begin")
            insert(0, 20_000)
            database.execute("commit")

        self.rate("sqlite_bulk", 20_000, "rows/s", bulk)
        self.rate("sqlite_txn", 100, "txn/s", lambda: insert(100_000, 100))
        assert database.execute("pragma integrity_check").fetchone()[0] == "ok"
        database.execute("pragma journal_mode=wal")
        self.rate("sqlite_wal_txn", 300, "txn/s", lambda: insert(200_000, 300))
        database.close()

    def run_all(self):
        wanted = self.options.only.split(",") if self.options.only else self.groups
        for group in self.groups:
            if group not in wanted:
                continue
            try:
                getattr(self, group)()
            except Exception as error:  # one group that fails must not hide the others
                detail = getattr(error, "stderr", b"")
                print(f"# {self.label} {group} FAILED: {error!r} {detail!r}", file=sys.stderr, flush=True)
        shutil.rmtree(self.dir, ignore_errors=True)


ENCRYPTED = ("gocryptfs", "securefs", "cryfs", "encfs")


def medians(paths):
    """By figure and label, with the figures' units."""
    values, units, labels = {}, {}, []
    for path in paths:
        for line in open(path):
            words = line.split()
            if len(words) != 4 or words[0] == "#":
                continue
            label, name, value, unit = words
            values.setdefault(name, {}).setdefault(label, []).append(float(value))
            units[name] = unit
            if label not in labels:
                labels.append(label)
    middles = {name: {label: statistics.median(all) for label, all in by.items()} for name, by in values.items()}
    return middles, units, labels


def short(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def print_goals(own, paths):
    """A Markdown table; its last column is the own figure in units of its goal (seconds are inverted)."""
    middles, units, labels = medians(paths)
    labels = [own] + [label for label in labels if label != own]
    print("| figure | unit |", " | ".join(labels), "| of goal |")
    print("|---|---|" + "---:|" * (len(labels) + 1))
    for name, by_label in middles.items():
        # As rates, so that more is better.
        rate = {label: 1 / value if units[name] == "s" else value for label, value in by_label.items()}
        goals = [1.2 * max(rate[label] for label in ENCRYPTED if label in rate)] if rate.keys() & set(ENCRYPTED) else []
        goals += [0.7 * rate["ceiling"]] if "ceiling" in rate else []
        cells = [short(by_label[label]) if label in by_label else "-" for label in labels]
        reached = f"{rate[own] / min(goals):.2f}" if goals and own in rate else "-"
        print(f"| {name} | {units[name]} |", " | ".join(cells), f"| {reached} |")


def main():
    if sys.argv[1:2] == ["--goals"]:
        return print_goals(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("label")
    parser.add_argument("dir")
    parser.add_argument("--seq", type=int, default=512, help="MiB of the sequential file")
    parser.add_argument("--files", type=int, default=5000, help="how many small files")
    parser.add_argument("--quick", action="store_true", help="64 MiB and 1,000 files")
    parser.add_argument("--only", default="", help="groups, of: " + ",".join(Bench.groups))
    parser.add_argument("--tree", help="a source tree to use instead of the generated one")
    options = parser.parse_args()
    if options.quick:
        options.seq, options.files = 64, 1000
    make_corpus(options.tree)
    Bench(options.label, options.dir, options).run_all()


main()
