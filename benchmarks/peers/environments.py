"""The peers' environments: each peer has the Python and the locked packages of `.peers/<name>` in the project's root.

    python -m benchmarks.peers.environments NAME…|all

PyTorch's pin is meant for pip, and no other installer, where pip is set up to find a build for CPUs.
"""

import pathlib
import subprocess
import sys
import venv

NAMES = ("pytorch", "pfl_research", "fedjax", "flower")
HERE = pathlib.Path(__file__).parent
ENVIRONMENTS = HERE.parent.parent / ".peers"


def python_of(name: str) -> pathlib.Path | None:
    """The Python of a peer's environment; None if the environment is missing or incomplete."""
    directory = ENVIRONMENTS / name
    return directory / "bin" / "python" if (directory / "installed").exists() else None


def make(name: str) -> str | None:
    """Makes one peer's environment again. Returns the error in one line, or None."""
    directory = ENVIRONMENTS / name
    try:
        venv.create(directory, clear=True, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no environment could be made in {directory}: {error}"
    pip: list[pathlib.Path | str] = [
        directory / "bin" / "python",
        "-m",
        "pip",
        "install",
        "-qq",
        "--disable-pip-version-check",
    ]
    lock = HERE / f"requirements-{name}.txt"
    done = subprocess.run([*pip, "--no-deps", "-r", lock], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"status {done.returncode}"]
        return f"pip could not install {lock.name}: {lines[-1]}"
    (directory / "installed").touch()
    return None


def main(arguments: list[str]) -> int:
    names = list(NAMES) if arguments == ["all"] else arguments
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        print(
            f"Error: name peers out of {', '.join(NAMES)}, or all; got {' '.join(unknown) or 'none'}", file=sys.stderr
        )
        return 1
    if sys.version_info[:2] != (3, 11):
        print(f"Error: the peers' packages are locked for Python 3.11, not {sys.version.split()[0]}", file=sys.stderr)
        return 1
    failures = 0
    for name in names:
        fault = make(name)
        failures += fault is not None
        print(f"{name}: {'failed, ' + fault if fault else f'ready in {ENVIRONMENTS / name}'}", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
