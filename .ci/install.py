"""Makes a virtual environment with what the project and its tests need, and says what it does.

python3 .ci/install.py .venv        plain lines only, the same in a terminal and in the log of a CI
"""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote

WHAT = """\
Installing Python packages into {folder}, at the versions of constraints.txt: torch, Ray and about
100 smaller ones, once. It takes one and a half minutes of a core and the download of some 600 MB
(several GB where pip finds the CUDA build of torch); they fill 2.4 GB.
"""
LONGEST_SILENCE_SECONDS = 15.0

# Wheels of some size; pip tells the size of small ones in kB and brings most of them in no time.
LARGE = re.compile(r"\s*(Downloading|Using cached) (?:\S*/)?([^-/\s]+)-(\S+?)-\S+ \((.+ [MG]B)\)")
UNPACKING = "Installing collected packages:"


def main(folder: Path) -> int:
    """Make the environment; returns the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - whatever Python is there runs this file
        print("Python 3.11 or newer is needed; name one with make PYTHON=python3.11")
        return 2
    print(WHAT.format(folder=folder), end="", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", str(folder)], check=False).returncode:
        print("No venv here; on Debian: apt-get install python3-venv")
        return 2
    try:
        return install(folder, ["-c", "constraints.txt", "-e", ".[test]"])
    except KeyboardInterrupt:
        print("  stopped; the same command goes on", flush=True)
        return 130


def install(folder: Path, words: list[str]) -> int:
    """Let the pip of an environment install something, with a line for each large part."""
    pip = [str(folder / "bin/pip"), "install", "--disable-pip-version-check", "--progress-bar=off"]
    start = time.monotonic()
    said = threading.Event()
    with subprocess.Popen([*pip, *words], stdout=subprocess.PIPE, text=True) as process:
        threading.Thread(target=break_silence, args=(process, said, start), daemon=True).start()
        assert process.stdout is not None
        for line in process.stdout:
            if text := short(line):
                said.set()
                print(f"  {text}", flush=True)
        code = process.wait()
    seconds = round(time.monotonic() - start)
    if code:
        print(f"  pip failed after {seconds} s; what it said is above. The same command goes on.")
    else:
        print(f"  installed in {seconds} s", flush=True)
    return code


def short(line: str) -> str:
    """What a line of pip means to a person; empty for most lines."""
    if large := LARGE.match(line):
        what, name, version, size = large.groups()
        return f"{what.lower()} {unquote(f'{name} {version}')} ({size})"
    if line.startswith(UNPACKING):
        return f"unpacking {line.count(',') + 1} packages"
    return ""


def break_silence(process: "subprocess.Popen[str]", said: threading.Event, start: float) -> None:
    """Print how long it has taken, whenever there was nothing to say for a while."""
    while process.poll() is None:
        if not said.wait(LONGEST_SILENCE_SECONDS) and process.poll() is None:
            print(f"  at work for {round(time.monotonic() - start)} s", flush=True)
        said.clear()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
