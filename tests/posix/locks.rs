//! Locks are real among the programs of one machine: flock(2), fcntl(2) by byte ranges, and those of open files.

use super::stage::{Stage, command, done};

/// Two processes and one file. The first line that differs from what is expected ends the script.
const SCRIPT: &str = r#"
import fcntl, os, signal, struct, sys
path = sys.argv[1]
LOCK = 'hhqqi4x'
OFD_SETLK, OFD_SETLKW = 37, 38

def child(act):
    # What a process of its own comes to: True, or the name of the error.
    near, far = os.pipe()
    if os.fork() == 0:
        try:
            act(); answer = 'done'
        except OSError as error:
            answer = error.strerror
        os.write(far, answer.encode()); os._exit(0)
    os.close(far)
    answer = os.read(near, 100).decode()
    os.close(near); os.wait()
    return answer

def other():
    return open(path, 'r+b', buffering=0)

BUSY = 'Resource temporarily unavailable'
file = other(); file.write(b'x' * 100)

fcntl.flock(file, fcntl.LOCK_EX)
assert child(lambda: fcntl.flock(other(), fcntl.LOCK_SH | fcntl.LOCK_NB)) == BUSY
fcntl.flock(file, fcntl.LOCK_SH)
assert child(lambda: fcntl.flock(other(), fcntl.LOCK_SH | fcntl.LOCK_NB)) == 'done'
assert child(lambda: fcntl.flock(other(), fcntl.LOCK_EX | fcntl.LOCK_NB)) == BUSY
fcntl.flock(file, fcntl.LOCK_UN)
assert child(lambda: fcntl.flock(other(), fcntl.LOCK_EX | fcntl.LOCK_NB)) == 'done'

fcntl.lockf(file, fcntl.LOCK_EX, 10, 20)
assert child(lambda: fcntl.lockf(other(), fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)) == 'done'
assert child(lambda: fcntl.lockf(other(), fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 15)) == BUSY
def who():
    ask = struct.pack(LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, start, length, pid = struct.unpack(LOCK, fcntl.fcntl(other(), fcntl.F_GETLK, ask))
    assert (kind, start, length, pid) == (fcntl.F_WRLCK, 20, 10, parent), (kind, start, length, pid)
parent = os.getpid()
assert child(who) == 'done'
# A lock of the process goes with any of its handles.
other().close()
assert child(lambda: fcntl.lockf(other(), fcntl.LOCK_EX | fcntl.LOCK_NB)) == 'done'

# A lock of an open file does not, and holds against this very process.
whole = struct.pack(LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
fcntl.fcntl(file, OFD_SETLK, whole)
other().close()
second = other()
try:
    fcntl.fcntl(second, OFD_SETLK, whole); raise SystemExit('two owners')
except BlockingIOError:
    pass

# Who waits gets it when it is given back, also by an end without a word.
ready, go = os.pipe()
holder = os.fork()
if holder == 0:
    mine = other(); fcntl.flock(mine, fcntl.LOCK_EX)
    os.write(go, b'x'); signal.pause()
os.read(ready, 1)
waiter = os.fork()
if waiter == 0:
    fcntl.flock(other(), fcntl.LOCK_EX); os._exit(7)
os.kill(holder, 9); os.waitpid(holder, 0)
assert os.waitstatus_to_exitcode(os.waitpid(waiter, 0)[1]) == 7
print('all held')
"#;

#[test]
fn locks_hold_among_local_processes() {
    let stage = Stage::new("");
    let file = stage.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(done(command("python3").args(["-c", SCRIPT]).arg(&file)), "all held\n");
    stage.end();
}
