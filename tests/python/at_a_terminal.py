"""Runs a program at a terminal of its own, types one line when it is asked for, and prints all that
the terminal showed.

Called with the prompt to wait for, what to type then, and the program with its arguments; ends with
the program's exit status. It types like a person: after the prompt, when the terminal shows no more
of what is typed.
"""

import os
import pty
import sys
import termios
import time



def echoes(terminal):
    return termios.tcgetattr(terminal)[3] & termios.ECHO != 0


prompt, typed, program = sys.argv[1].encode(), sys.argv[2].encode(), sys.argv[3:]
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
        while echoes(terminal) and time.monotonic() < until:
            time.sleep(0.01)
        os.write(terminal, typed + b"\n")
_, status = os.waitpid(child, 0)
sys.stdout.write(shown.decode(errors="replace"))
sys.exit(os.waitstatus_to_exitcode(status))
