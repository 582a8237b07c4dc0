"""Runs a command at a terminal of its own, and types what is to be typed.

Usage: atTerminal.py '[["what it asks", "what is typed"], ...]' COMMAND...
Prints all that stands on the terminal; its exit code is the command's.
"""
import json
import os
import pty
import select
import sys

to_type = json.loads(sys.argv[1])
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])

shown = b""
since = 0
while select.select([terminal], [], [], 20)[0]:
    try:
        more = os.read(terminal, 65536)
    except OSError:  # EIO: the command has ended
        break
    if not more:
        break
    shown += more
    if to_type and to_type[0][0].encode() in shown[since:]:
        since = len(shown)
        os.write(terminal, to_type.pop(0)[1].encode())

os.close(terminal)  # which ends a command that still waits
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
