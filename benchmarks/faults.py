"""Break runs in every way we could think of, resume them, and compare with an undisturbed run byte for byte.

``python benchmarks/faults.py [--seeds 20] [--first 0] [--network NETWORK] [--json]``

Each seed is one scenario at a moment of its own, with real processes. After the fault is put right the run is resumed
until it succeeds; then every output has to be the same bytes as without a fault, nothing half-written may lie about,
and the manifest has to name the fault. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

NOT_ENDED = "previous run did not finish"
"""What the record says of a run that could not say so itself."""

PROGRAM = "from napari_drososeg.cli import app; app()"

# The fourth time that the network is run, the process may take 64 MB more and the allocator is asked for 4 GB.
OUT_OF_MEMORY = """
import resource
from itertools import count
import numpy as np
from napari_drososeg.cli import app
from napari_drososeg.inference.openvino_engine import OpenVinoEngine
infer, calls = OpenVinoEngine.infer, count()
def starved(self, images, output):
    if next(calls) != 3:
        return infer(self, images, output)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20), limits[1]))
    try:
        np.empty(1 << 30, np.float32)
        return infer(self, images, output)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
OpenVinoEngine.infer = starved
app()
"""


@dataclass
class Job:
    """A job in a folder of its own, and how to run it."""

    folder: Path
    network: str
    volume: bool
    cache: Path
    workers: int = 0

    @property
    def source(self) -> Path:
        """The input."""
        return self.folder / ("in.zarr" if self.volume else "in")

    @property
    def output(self) -> Path:
        """The output."""
        return self.folder / ("out.zarr" if self.volume else "out")

    @property
    def manifest(self) -> Path:
        """The record of the run."""
        return self.folder / ".out.zarr.drososeg.jsonl" if self.volume else self.output / ".drososeg.jsonl"

    def start(self, *more: str, program: str = PROGRAM, **how: Any) -> subprocess.Popen[str]:
        """Start the program in a process group of its own."""
        fixed = ["--model", self.network, "--engine", "openvino", "--precision", "f32", "--threads", "1", "--quiet"]
        kind = ["--block", "1,128,128"] if self.volume else []
        workers = ["--workers", str(self.workers)] if self.workers else []
        command = [sys.executable, "-c", program, "predict", str(self.source), "-o", str(self.output), "--resume"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DROSOSEG_CACHE": str(self.cache)}
        return subprocess.Popen(
            [*command, *fixed, *kind, *workers, *more],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
            **how,
        )

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for the program; returns its exit code and what it said."""
        errors = process.communicate(timeout=600)[1]
        return process.returncode, errors

    def run(self, *more: str, **how: Any) -> tuple[int, str]:
        """Run the program."""
        return self.finish(self.start(*more, **how))

    def outputs(self) -> dict[str, bytes]:
        """Return all files of the output but the record, by name."""
        found = {}
        for path in sorted(self.output.rglob("*")):
            if path.is_file() and path != self.manifest:
                found[str(path.relative_to(self.output))] = path.read_bytes()
        return found

    def leftovers(self) -> list[str]:
        """Return temporary files that nobody will remove."""
        return [str(p) for p in self.folder.rglob("*") if p.name.endswith((".part", ".partial"))]

    def lines(self) -> list[dict[str, Any]]:
        """Return the record; a line cut short is left out."""
        if not self.manifest.exists():
            return []
        found = []
        for line in self.manifest.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def ended(self) -> bool:
        """Return whether the record says that all was done: a process may be killed while it is leaving."""
        return bool(self.lines()) and self.lines()[-1]["what"] == "end"

    def faults(self) -> list[str]:
        """Return what the record says went wrong."""
        return [str(e["error"]) for e in self.lines() if e.get("error")]


def write_inputs(folder: Path) -> None:
    """Write the same eight sections as files and as a zarr."""
    import tifffile
    import zarr

    from napari_drososeg.samples import synthetic_stack

    pixels = np.asarray(synthetic_stack((6, 256, 256), 5)[0].data)
    zarr.create_array(folder / "in.zarr", data=pixels, chunks=(1, 128, 128), attributes={})
    (folder / "in").mkdir()
    for z, section in enumerate(pixels):
        tifffile.imwrite(folder / "in" / f"s{z}.tif", section)


def wait_for(job: Job, state: Callable[[list[dict[str, Any]]], bool], process: subprocess.Popen[str]) -> None:
    """Wait until the record says something, or the program ends."""
    while process.poll() is None and not state(job.lines()):
        time.sleep(0.01)


def begun(n: int) -> Callable[[list[dict[str, Any]]], bool]:
    """Return whether `n` blocks or items are done."""
    return lambda lines: sum(e["what"] == "block" or e.get("state") == "done" for e in lines) >= n


def kill_run(job: Job, rng: random.Random) -> str:
    """SIGKILL everything at a random moment: some milliseconds after the start, or after so many blocks or files."""
    process = job.start()
    done = rng.randrange(0, 20 if job.volume else 5)
    wait_for(job, begun(done) if done else bool, process)
    time.sleep(rng.random() * (0.02 if done else 1.0))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    job.finish(process)
    return NOT_ENDED if process.returncode < 0 and not job.ended() else ""


def kill_client(job: Job, rng: random.Random) -> str:
    """SIGKILL the process that hands out the work; its workers have to end by themselves."""
    process = job.start()
    wait_for(job, begun(rng.randrange(1, 12)), process)
    children = worker_ids(process.pid)
    process.kill()
    job.finish(process)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").exists() and _alive(pid) for pid in children):
        if time.monotonic() > deadline:
            raise AssertionError("workers outlive their client")
        time.sleep(0.05)
    return NOT_ENDED if process.returncode < 0 and not job.ended() else ""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def worker_ids(client: int) -> list[int]:
    """Return the workers of a client: its children that are not the one that tracks shared resources."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == client and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def kill_worker(job: Job, rng: random.Random) -> str:
    """SIGKILL one worker; the run goes on."""
    process = job.start()
    wait_for(job, begun(rng.randrange(1, 8)), process)
    workers = worker_ids(process.pid)
    if workers:
        os.kill(rng.choice(workers), signal.SIGKILL)
    code, said = job.finish(process)
    assert code == 0, said
    return "SIGKILL" if workers else ""


@contextlib.contextmanager
def spoilt(path: Path, content: bytes | None) -> Iterator[None]:
    """Put `content` in place of a file, or nothing, and bring the file back as it was."""
    aside = path.parent.parent / f"aside-{path.name}"
    path.rename(aside)
    if content is not None:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        aside.rename(path)


def _bad_file(job: Job, rng: random.Random, content: Callable[[bytes], bytes]) -> str:
    path = job.source / f"s{rng.randrange(6)}.tif"
    with spoilt(path, content(path.read_bytes())):
        code, _ = job.run()
        assert code == 1
    return path.name


def truncated(job: Job, rng: random.Random) -> str:
    """Cut a TIFF short somewhere."""
    return _bad_file(job, rng, lambda whole: whole[: rng.randrange(1, len(whole) - 1)])


def zero_bytes(job: Job, rng: random.Random) -> str:
    """Empty a file."""
    return _bad_file(job, rng, lambda _: b"")


def vanishing(job: Job, rng: random.Random) -> str:
    """Let a file vanish after the run was planned."""
    process = job.start()
    wait_for(job, lambda lines: bool(lines), process)
    path = job.source / f"s{rng.randrange(3, 6)}.tif"
    with spoilt(path, None):
        code, _ = job.finish(process)
    return path.name if code else ""


def obey_permissions() -> None:
    """Give up root's right to read everything (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH) for the program to be started."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):
        if libc.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
            raise OSError(ctypes.get_errno(), "prctl")


def unreadable(job: Job, rng: random.Random) -> str:
    """Take the permission to read a file."""
    path = job.source / f"s{rng.randrange(6)}.tif"
    mode = path.stat().st_mode
    if os.geteuid() == 0 and sys.platform != "linux":
        raise Skipped("root reads everything here")
    path.chmod(0)
    try:
        code, said = job.run(**({"preexec_fn": obey_permissions} if os.geteuid() == 0 else {}))
        assert code == 1, said
    finally:
        path.chmod(mode)
    return "Permission denied"


def disk_full(job: Job, rng: random.Random) -> str:
    """Let no file grow beyond a size at which labels, or the record itself, do not fit."""
    size = rng.choice([2_000, 5_000] if job.volume else [4_000, 60_000])
    code, said = job.run(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    assert code == 1, said
    assert "File too large" in said or "cannot be written" in said, said
    if "cannot be written" in said:
        return "cannot be written"
    return NOT_ENDED  # the record itself could not be written


def out_of_memory(job: Job, _rng: random.Random) -> str:
    """Let memory run out in one block."""
    code, said = job.run(program=OUT_OF_MEMORY)
    assert code == 1, said
    return "not enough memory for a tile"


class Skipped(Exception):
    """A scenario that cannot be had here, and why."""


SCENARIOS: list[tuple[str, Callable[[Job, random.Random], str], bool, int]] = [
    ("SIGKILL of the whole run, volume", kill_run, True, 0),
    ("SIGKILL of the client with two workers, volume", kill_client, True, 2),
    ("disk full, files", disk_full, False, 0),
    ("truncated TIFF", truncated, False, 0),
    ("zero-byte file", zero_bytes, False, 0),
    ("file vanishing", vanishing, False, 0),
    ("SIGKILL of a worker, volume", kill_worker, True, 2),
    ("SIGKILL of the whole run, files", kill_run, False, 0),
    ("out of memory in a block", out_of_memory, True, 0),
    ("disk full, volume", disk_full, True, 0),
    ("SIGKILL of the whole run with two workers, files", kill_run, False, 2),
    ("unreadable file", unreadable, False, 0),
]
"""Name, what breaks it, whether it is a volume, and how many workers."""


def tried(
    seed: int, network: str, inputs: Path, expected: dict[bool, dict[str, bytes]], folder: Path
) -> dict[str, Any]:
    """Break one run and make it good."""
    name, breaks, volume, workers = SCENARIOS[seed % len(SCENARIOS)]
    shutil.copytree(inputs, folder, copy_function=shutil.copy2)
    job = Job(folder, network, volume, folder.parent / "cache", workers)
    result: dict[str, Any] = {"seed": seed, "scenario": name, "state": "passed"}
    try:
        named = breaks(job, random.Random(seed))
        runs = 0
        while True:
            code, said = job.run()
            runs += 1
            if code == 0:
                break
            assert runs < 3, said
        assert job.outputs() == expected[volume], "the output differs from that of an undisturbed run"
        assert not job.leftovers(), job.leftovers()
        assert not named or any(named in fault for fault in job.faults()), (named, job.faults())
        result |= {"resumed": runs, "faults": job.faults()}
    except Skipped as reason:
        result |= {"state": "skipped", "reason": str(reason)}
    except AssertionError as error:
        result |= {"state": "FAILED", "reason": str(error)}
    return result


def main() -> int:
    """Run the scenarios; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--network", default="unet")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        inputs = root / "inputs"
        inputs.mkdir()
        write_inputs(inputs)
        seeds = range(options.first, options.first + options.seeds)
        kinds = {SCENARIOS[s % len(SCENARIOS)][2] for s in seeds}
        expected = {}
        for volume in kinds:
            undisturbed = root / f"undisturbed-{volume}"
            shutil.copytree(inputs, undisturbed, copy_function=shutil.copy2)
            job = Job(undisturbed, options.network, volume, root / "cache")
            code, said = job.run()
            assert code == 0, said
            expected[volume] = job.outputs()
        results = []
        for seed in seeds:
            results.append(tried(seed, options.network, inputs, expected, root / f"seed-{seed}"))
            if not options.json:
                print(results[-1], flush=True)
    if options.json:
        print(json.dumps(results, indent=2))
    return int(any(r["state"] == "FAILED" for r in results))


if __name__ == "__main__":
    sys.exit(main())
