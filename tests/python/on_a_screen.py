"""Runs a program on a terminal of a given size, looks at its screen, and prints as JSON what was there.

Called with a JSON object: `size` (columns and rows), `until` (what the screen must show), `resize` (a
second size, or null), `keys` (what is typed then), `program` (a list). Prints `screens`, one for each
size, each a list of lines; `cut`: characters beyond the right edge; `scrolled`: lines lost at the
top; `restored`: whether the terminal was left as it was found; `status`: the exit status.
"""

import fcntl
import json
import os
import pty
import re
import select
import struct
import sys
import termios
import time

order = json.loads(sys.argv[1])
TOKEN = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|\x1b.|.", re.DOTALL)


class Screen:
    """As much of a terminal as a program needs that draws whole lines."""

    def __init__(self, size):
        self.cut = self.scrolled = 0
        self.modes = {"1049": "l", "25": "h", "7": "h"}
        self.resize(size)

    def resize(self, size):
        self.columns, self.rows = size
        self.lines = [""] * self.rows
        self.row = self.column = 0

    def take(self, text):
        for match in TOKEN.finditer(text):
            private, parameters, final = match.group(1, 2, 3)
            if final is None:
                self.put(match.group())
            elif private:
                self.modes.update((mode, final) for mode in parameters.split(";"))
            elif final == "H":
                self.row = self.column = 0
            elif final in "KJ":
                # behind the last column the cursor still stands on it
                column = min(self.column, self.columns - 1)
                self.lines[self.row] = self.lines[self.row][:column]
            if final == "J":
                self.lines[self.row + 1 :] = [""] * (self.rows - self.row - 1)

    def put(self, character):
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row += 1
            if self.row == self.rows:
                self.lines = self.lines[1:] + [""]
                self.row -= 1
                self.scrolled += 1
        elif character >= " ":
            if self.column >= self.columns:
                self.cut += 1
                return
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1


def set_size(terminal, size):
    columns, rows = size
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


child, terminal = pty.fork()
if child == 0:
    set_size(0, order["size"])
    os.execv(order["program"][0], order["program"])
before = termios.tcgetattr(terminal)
screen, screens, unread = Screen(order["size"]), [], b""


def read():
    """Reads on; false once the program has ended."""
    global unread
    if not select.select([terminal], [], [], 60)[0]:
        sys.exit(f"nothing more came; the screen was {screen.lines}")
    try:
        unread += os.read(terminal, 65536)
    except OSError:  # how a terminal ends on Linux
        return False
    # whole characters and sequences only: what is cut off is read again with its rest
    whole = unread.decode(errors="ignore")
    whole = whole[: len(whole) - len(re.search(r"(\x1b(\[[?0-9;]*)?)?\Z", whole).group())]
    screen.take(whole)
    unread = unread[len(whole.encode()) :]
    return True


def wait(seconds):
    until = time.monotonic() + seconds
    while not all(text in "\n".join(screen.lines) for text in order["until"]):
        if time.monotonic() > until or not read():
            sys.exit(f"not there: {order['until']}; the screen was {screen.lines}")


wait(60)
screens.append(screen.lines)
if order["resize"]:
    screen.resize(order["resize"])
    set_size(terminal, order["resize"])
    wait(60)
    screens.append(screen.lines)
os.write(terminal, order["keys"].encode())
while read():
    pass
_, status = os.waitpid(child, 0)
usual = {"1049": "l", "25": "h", "7": "h"}
restored = termios.tcgetattr(terminal) == before and screen.modes.items() >= usual.items()
print(
    json.dumps(
        {
            "screens": screens,
            "cut": screen.cut,
            "scrolled": screen.scrolled,
            "restored": restored,
            "status": os.waitstatus_to_exitcode(status),
        }
    )
)
