"""Runs a program at a terminal of its own, types one line when it is asked for, and prints all that
the terminal showed.

Called with `hidden` or `shown`, the prompt to wait for, what to type then, and the program with its
arguments; ends with the program's exit status. What is `hidden` is typed when the terminal has
stopped showing what is typed, as a person would.
"""

import os
import pty
import sys
import termios
import time



def echoes(terminal):
    return termios.tcgetattr(terminal)[3] & termios.ECHO != 0


hidden, prompt, typed = sys.argv[1] == "hidden", sys.argv[2].encode(), sys.argv[3].encode()
program = sys.argv[4:]
child, terminal = pty.fork()
if child == 0:
    os.execv(program[0], program)
shown = b""
asked = False
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:  # how a terminal ends on Linux
        break
    if not piece:
        break
    shown += piece
    if not asked and prompt in shown:
        asked = True
        until = time.monotonic() + 10
        while hidden and echoes(terminal) and time.monotonic() < until:
            time.sleep(0.01)
        os.write(terminal, typed + b"\n")
_, status = os.waitpid(child, 0)
sys.stdout.write(shown.decode(errors="replace"))
sys.exit(os.waitstatus_to_exitcode(status))
