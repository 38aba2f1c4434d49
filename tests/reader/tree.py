"""The files in a version."""

from collections import Counter, namedtuple

from fields import Cursor, is_name, need

INLINE = 1024
FILE, DIRECTORY, SYMLINK, FIFO = 1, 2, 3, 4
Inode = namedtuple("Inode", "type mode uid gid mtime links parent size data_id data log")
# What is there without standing anywhere: the root of an empty block, a directory on the way to a block.
GENESIS = Inode(DIRECTORY, 0o755, 0, 0, 0, 2, 0, 0, 0, None, 0)
WAY = GENESIS._replace(mode=0o555)
# The root of a block that cannot be opened.
SHUT = GENESIS._replace(mode=0)


def read_inode(value, what):
    fields = Cursor(value, what)

    def time():
        zigzag, nanoseconds = fields.varint(), fields.int(4)
        need(nanoseconds < 10**9, f"{what}: an impossible time")
        return ((zigzag >> 1) ^ -(zigzag & 1)) * 10**9 + nanoseconds

    kind, flags, mode, uid, gid, crtime = *fields.take(2), fields.int(2), fields.varint(), fields.varint(), time()
    _, mtime, _ = [time() if flags & flag else crtime for flag in (1, 2, 4)]
    links, parent = fields.varint(), fields.int(8)
    size = fields.varint() if kind in (FILE, SYMLINK, 6, 7) else 0
    data_id = fields.int(8) if kind == FILE else 0
    data = fields.take(size) if kind == FILE and size <= INLINE else None
    log = fields.int(1) if kind == FILE and size > INLINE else 0
    fields.done()
    need(1 <= kind <= 7 and flags < 8 and mode < 4096 and log in (0, 14, 16), f"{what}: no inode")
    return Inode(kind, mode, uid, gid, mtime, links, parent, size, data_id, data, log)


class Tree:
    """The filesystem in one block."""

    def __init__(self, path, keys, root, root_place):
        self.path, self.keys, self.root = path, keys, keys.number + 1
        self.inodes, self.names, self.chunks, self.xattrs, self.targets = {}, {}, {}, {}, {}
        what = f"block {keys.number}"
        for key, value, place in keys.map(root, root_place, what) if root else ():
            inode, kind, sub = int.from_bytes(key[:8], "big"), key[8], key[9:]
            need(len(key) > 8, f"{what}: a key that is too short")
            need((place is not None) == (kind == 3), f"{what}: a place where none belongs, or none")
            if kind == 1:
                self.inodes[inode] = read_inode(value, f"{what}: inode {inode}")
            elif kind == 2:
                need(is_name(sub) and len(value) == 9, f"{what}: an entry of an impossible form")
                self.names.setdefault(inode, {})[sub] = int.from_bytes(value[:8], "little"), value[8]
            elif kind == 3:
                self.chunks.setdefault(inode, {})[int.from_bytes(sub, "big")] = value, place
            elif kind == 4:
                self.xattrs.setdefault(inode, {})[sub] = value
            else:
                need(kind == 5 and not sub, f"{what}: a key of an unknown kind")
                self.targets[inode] = value
        if not root:
            self.inodes[self.root] = GENESIS
        self.check(what)

    def check(self, what):
        """Whether it is a filesystem at all."""
        named = [(parent, *entry) for parent, names in self.names.items() for entry in names.values()]
        count, subdirectories = Counter(inode for _, inode, _ in named), Counter()
        for parent, inode, kind in named:
            need(inode in self.inodes and self.inodes[inode].type == kind, f"{what}: a name with nothing behind it")
            subdirectories[parent] += kind == DIRECTORY
            need(kind != DIRECTORY or self.inodes[inode].parent == parent, f"{what}: a directory in two places")
        for owners, kind in ((self.names, DIRECTORY), (self.chunks, FILE), (self.targets, SYMLINK)):
            fits = all(inode in self.inodes and self.inodes[inode].type == kind for inode in owners)
            need(fits, f"{what}: contents that do not go with a type")
        for inode, found in self.inodes.items():
            where = f"{what}: inode {inode}"
            need(inode == self.root or inode >= 1 << 32, f"{where}: a number that is never drawn")
            links = 2 + subdirectories[inode] if found.type == DIRECTORY else count[inode]
            names = inode != self.root if found.type == DIRECTORY else max(1, count[inode])
            need((found.links, count[inode]) == (links, names), f"{where}: a wrong number of links")
            need(found.type != SYMLINK or len(self.targets.get(inode, b"")) == found.size, f"{where}: no target")
            for index, (_, place) in self.chunks.get(inode, {}).items():
                fits = found.log and index << found.log < found.size and 0 < place.length <= 1 << found.log
                need(fits, f"{where}: a chunk that does not fit")
        need(self.root in self.inodes, f"{what}: no root")
        reached = {inode for _, inode, _ in self.walk()}
        need(reached == self.inodes.keys(), f"{what}: a directory within itself")

    def walk(self):
        """Path, number and inode of everything."""
        waiting = [(self.path, self.root)]
        for path, inode in waiting:
            yield path, inode, self.inodes[inode]
            below = self.names.get(inode, {}).items()
            waiting += [(path + b"/" + name if path else name, child) for name, (child, _) in below]

    def content(self, inode):
        """Offset and bytes of what is in a file; all else in it is zero."""
        found = self.inodes[inode]
        if found.data:
            yield 0, found.data
        for index, (expected, place) in sorted(self.chunks.get(inode, {}).items()):
            offset, what = index << found.log, f"block {self.keys.number}: inode {inode}: chunk {index}"
            plain = self.keys.chunk(place, expected, found.data_id, index, what)
            yield offset, plain[: found.size - offset]


def everything(version, open_private=lambda tree, block: None):
    """Path, tree, number and inode of everything. A block stands in for what the block around it has at its path."""
    trees = sorted((path, Tree(path, *rest)) for path, *rest in version.blocks)
    numbers = Counter(inode for _, tree in trees for inode in tree.inodes)
    trees = [(path, open_private(tree, version.private[path]) if path in version.private else tree) for path, tree in trees]
    need(max(numbers.values()) == 1, "the blocks: two have an inode of one number")
    found = {}
    for path, tree in trees:
        # The way to a block is there, whatever the blocks around it say.
        for above in (path[:at] for at, byte in enumerate(path) if byte == ord("/")):
            if above not in found or found[above][2].type != DIRECTORY:
                found[above] = None, 0, WAY
        found = {other: entry for other, entry in found.items() if not (other + b"/").startswith(path + b"/")}
        shown = {other: (tree, inode, record) for other, inode, record in tree.walk()} if tree else {path: (None, 0, SHUT)}
        found |= shown
    return [(path, *entry) for path, entry in sorted(found.items())]
