"""What a batch run costs beyond executing its notebook, and how long a list of many runs takes.

    python tests/benchmarks/batch.py --runs 100

On a machine that does other things too, look at the processor time.
`plain` is nbclient alone: two processes that have imported it, each executing notebooks one after
the other. `ours` is `run_many(n_jobs=2)`: checked parameters, a process and a folder for each run,
the executed notebook, its HTML, results, record and provenance. Both run the same notebooks in
turns; the times of the shortest turn are shown. `one` compares a single run in a fresh Python with
a fresh Python that runs nbclient alone. `list` times `workbench runs` over made-up records.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

MANY = {
    "plain": """
import sys, time
from concurrent.futures import ProcessPoolExecutor
sys.path.insert(0, {here!r})
from batch import plain
with ProcessPoolExecutor(2) as pool:
    list(pool.map(plain, range(4)))  # imports
    started = time.perf_counter()
    list(pool.map(plain, range({runs})))
    print(time.perf_counter() - started)
""",
    "ours": """
import time
from workbench.batch import Job, run_many
started = time.perf_counter()
records = run_many([Job('trivial.ipynb')] * {runs}, n_jobs=2, out='runs{turn}')
print(time.perf_counter() - started)
failed = [record for record in records if record.status != 'succeeded']
if failed:
    log = (failed[0].folder / 'log.txt').read_text()
    raise SystemExit(f"{{len(failed)}} runs failed: {{failed[0].error}}\\n{{log}}")
""",
}
PLAIN = """
import nbformat
from nbclient import NotebookClient
NotebookClient(nbformat.read('trivial.ipynb', as_version=4), kernel_name='python3').execute()
"""
OURS = "from workbench.batch import run_notebook; run_notebook('trivial.ipynb')"


def main():
    options = arguments()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_notebook()
        if "many" in options.parts:
            many(options.runs, options.repeat)
        if "one" in options.parts:
            one(options.repeat)
        if "list" in options.parts:
            listing(options.records)
        os.chdir("/")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"largest child process: {peak:.2f} GiB")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=3)
    parts = ["many", "one", "list"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    return parser.parse_args()


def write_notebook():
    cells = [nbformat.v4.new_code_cell(source) for source in ("x = 1", "x + 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), "trivial.ipynb")


def many(runs, repeat):
    """Trivial runs, two at a time; the processor time is that of all processes, start included."""
    times, cpu = {"plain": [], "ours": []}, {"plain": [], "ours": []}
    here = str(Path(__file__).resolve().parent)
    for turn in range(repeat):
        for name, code in MANY.items():
            before = processor_time()
            source = code.format(runs=runs, turn=turn, here=here)
            command = [sys.executable, "-c", source]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name}, turn {turn}, exit code {done.returncode}: {done.stderr}")
            times[name].append(float(done.stdout))
            cpu[name].append(processor_time() - before)
    show(f"{runs} runs, two at a time", times, runs)
    best = {name: min(seconds) / runs for name, seconds in cpu.items()}
    ratio = best["ours"] / best["plain"]
    print(f"processor time a run: {best['plain']:.2f} and {best['ours']:.2f} s, ratio {ratio:.2f}")


def processor_time():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def plain(_):
    from nbclient import NotebookClient

    notebook = nbformat.read("trivial.ipynb", as_version=4)
    NotebookClient(notebook, kernel_name="python3").execute()


def one(repeat):
    """One run, with the start of Python and all imports."""
    times = {"plain": [], "ours": []}
    for _ in range(repeat):
        for name, code in (("plain", PLAIN), ("ours", OURS)):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - started)
    show("one run in a fresh Python", times, 1)


def show(title, times, runs):
    best = {name: min(seconds) for name, seconds in times.items()}
    ratio, over = best["ours"] / best["plain"], (best["ours"] - best["plain"]) / runs
    print(f"\n{title}\n{'':8}{'seconds':>9} {'each':>8}   all turns")
    for name, seconds in times.items():
        turns = ", ".join(f"{s:.1f}" for s in seconds)
        print(f"{name:8}{best[name]:9.2f} {best[name] / runs:8.2f}   {turns}")
    print(f"ours / plain = {ratio:.2f}; {over:+.2f} s a run")


def listing(count):
    """`workbench runs` over made-up records as large as real ones."""
    from workbench.batch import run_notebook

    record = run_notebook("trivial.ipynb", out="one")
    text = (record.folder / "run.json").read_text()
    for n in range(count):
        folder = Path("many") / f"{record.id}-{n:05}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(text.replace(record.id, folder.name))
    size = len(text)
    print(f"\nworkbench runs over {count:,} records of {size:,} bytes")
    started = time.perf_counter()
    command = [Path(sys.executable).with_name("workbench"), "runs", "--out", "many"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    print(f"{'workbench runs':24} {time.perf_counter() - started:6.2f} s")
    assert len(done.stdout.splitlines()) == count
    started = time.perf_counter()
    for path in Path("many").glob("*/run.json"):
        json.loads(path.read_bytes())
    print(f"{'json alone':24} {time.perf_counter() - started:6.2f} s")
    shutil.rmtree("many")


if __name__ == "__main__":
    main()
