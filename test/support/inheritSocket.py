"""Passes listening sockets to a program the way systemd does (sd_listen_fds(3)).

Node cannot set SO_BINDTODEVICE, which is what BindToDevice= in a socket unit sets.
"""

import argparse
import fcntl
import os
import socket

FIRST_FD = 3

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--device", help="the interface that the sockets are bound to")
parser.add_argument("--listen-pid", help="whom they are for, if not for the program")
parser.add_argument("--port", type=int, default=11434)
parser.add_argument("--address", action="append", required=True)
parser.add_argument("command", nargs=argparse.REMAINDER)
args = parser.parse_args()


def family_of(address: str) -> socket.AddressFamily:
    if address.startswith("/"):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def open_socket(address: str) -> int:
    family = family_of(address)
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if args.device is not None:
        device = args.device.encode()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    listening.bind(address if family == socket.AF_UNIX else (address, args.port))
    listening.listen()
    # Out of the way of the numbers that are given out below.
    return fcntl.fcntl(listening.detach(), fcntl.F_DUPFD, 64)


for number, fd in enumerate([open_socket(address) for address in args.address]):
    os.dup2(fd, FIRST_FD + number)
    os.set_inheritable(FIRST_FD + number, True)

os.environ["LISTEN_FDS"] = str(len(args.address))
os.environ["LISTEN_PID"] = args.listen_pid or str(os.getpid())
os.execvp(args.command[0], args.command)
