"""Runs UFW's own program again and again: half of what a start takes is to load it.

Reads its arguments from standard input, a JSON list a line, and answers each with a
line: {"code": 0, "stdout": "...", "stderr": "..."}.
"""

import json
import os
import runpy
import shutil
import sys

import ufw.backend_iptables  # noqa: F401
import ufw.frontend  # noqa: F401

program = shutil.which("ufw")
print("ready", flush=True)
for line in sys.stdin:
    outputs = [os.memfd_create(name) for name in ("stdout", "stderr")]
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        sys.argv = [program, *json.loads(line)]
        runpy.run_path(program, run_name="__main__")
        sys.exit()
    _, status = os.waitpid(pid, 0)
    said = []
    for output in outputs:
        os.lseek(output, 0, os.SEEK_SET)
        with open(output, encoding="utf-8") as file:
            said.append(file.read())
    code = os.waitstatus_to_exitcode(status)
    print(json.dumps({"code": code, "stdout": said[0], "stderr": said[1]}), flush=True)
