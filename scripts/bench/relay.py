#!/usr/bin/env python3
"""A long line between two network namespaces: packets wait for a while, and some are lost.

    relay.py NAMESPACE NAMESPACE DEVICE DELAY_MS LOSS_PERCENT [SEED]

Makes the tun device DEVICE in each namespace and carries IP packets between them until it is ended; the delay is that of one
direction. For kernels without netem. Says `ready` once both devices are there. Needs root.
"""

import collections
import ctypes
import fcntl
import os
import random
import selectors
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
PACKET_BYTES_MAX = 65536
QUEUE_PACKETS_MAX = 20000  # beyond it a line drops what comes in, as a router does
BURST = 64


def enter(namespace):
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"the namespace {namespace} cannot be entered")


def tun(namespace, device):
    enter(namespace)
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN | IFF_NO_PI))
    return fd


def take(source, queue, due, lost):
    """Reads what has come in, at most a burst; what is not lost waits in the queue."""
    for _ in range(BURST):
        try:
            packet = os.read(source, PACKET_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            # The device is down: nothing comes.
            time.sleep(0.001)
            return
        if not lost() and len(queue) < QUEUE_PACKETS_MAX:
            queue.append((due, packet))


def hand_over(queue, sink, now):
    while queue and queue[0][0] <= now:
        try:
            os.write(sink, queue.popleft()[1])
        except OSError:
            pass  # the other side is down, or its queue is full: lost


def relay(ends, delay, lost):
    selector = selectors.DefaultSelector()
    queues = [collections.deque(), collections.deque()]
    for at, end in enumerate(ends):
        selector.register(end, selectors.EVENT_READ, at)
    while True:
        waiting = [queue[0][0] for queue in queues if queue]
        pause = max(0, min(waiting) - time.monotonic()) if waiting else None
        for key, _ in selector.select(pause):
            take(key.fd, queues[key.data], time.monotonic() + delay, lost)
        now = time.monotonic()
        for at, queue in enumerate(queues):
            hand_over(queue, ends[1 - at], now)


def main():
    if len(sys.argv) not in (6, 7):
        sys.exit(__doc__)
    one, other, device, delay, loss, *seed = sys.argv[1:]
    dice = random.Random(int(seed[0]) if seed else 1)
    share = float(loss) / 100
    ends = [tun(namespace, device) for namespace in (one, other)]
    print("ready", flush=True)
    relay(ends, float(delay) / 1000, lambda: dice.random() < share)


if __name__ == "__main__":
    main()
