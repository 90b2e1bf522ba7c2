"""hubkit's generation beside datatrove's inference runner, curator and distilabel, all against one vLLM server.

    VLLM_CPU_KVCACHE_SPACE=1 python benchmarks/engine_peers.py --datatrove PYTHON --curator PYTHON \
        --distilabel PYTHON [--model FOLDER] [--prompts 600] [--rounds 3] [--window 256]

Each PYTHON is the interpreter of a separate environment with
    pip install 'datatrove[io]' httpx aiofiles aiosqlite xxhash
    pip install bespokelabs-curator
    pip install 'distilabel[openai]' requests
Peers that are not given are left out, which is printed. `peers/run_NAME.py` calls each.

The server is vLLM's official one, as hubkit starts it, one process for all, without a key, since not all peers can
send one. `window` is how many sequences it decodes at once; each client may have twice as many requests
in flight, the same for all, by the setting that its documentation names for it. (datatrove:
max_concurrent_generations; curator: max_concurrent_requests, its rate limits raised out of the way; distilabel:
input_batch_size.) Each keeps what it gets in its own way: journal, checkpoints and request cache, response files,
pipeline cache, in a fresh folder every time. Model, prompts, sampling (greedy) and lengths are those of engine_vllm.py.

"in process" is hubkit's vllm engine with its defaults: vLLM without the server, started before the measurement as the
server is. The one of the two that is not measured is stopped by SIGSTOP.

All take turns in every round, in an order that rotates; the first round is a warm-up and does not count.
Tokens are the completion tokens that the server reports, as each client counted them, and must be all that were
requested. Two rates are printed: over the time from the first request's arrival at the server to the last
answer's end, which a clock in the server measures in the same way for all; and over the whole call of the client
without imports, including its work before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from functools import partial
from pathlib import Path

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from engine_vllm import (  # noqa: E402
    ARGUMENTS,
    KINDS,
    descendants,
    lengths_of,
    model_of,
    prompts_of,
    send,
)
from peers.run_hubkit import measure  # noqa: E402

PEERS = ("datatrove", "curator", "distilabel")
IN_PROCESS = "in process"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for peer in PEERS:
        parser.add_argument(f"--{peer}", type=Path, help="its environment's python")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--lengths", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--prompts", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=256, help="sequences that the server decodes at once")
    options = parser.parse_args()

    from hubkit.engines.settings import EngineRuntime
    from hubkit.engines.vllm import VLLMEngine

    pythons = {IN_PROCESS: Path(sys.executable), "hubkit": Path(sys.executable)}
    for peer in PEERS:
        if (python := getattr(options, peer)) is None:
            print(f"*** {peer} IS LEFT OUT: no --{peer} PYTHON was given", flush=True)
        else:
            pythons[peer] = python

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = model_of(options.model, folder)
        files = {}
        for kind in options.lengths:
            rows = zip(prompts_of(options.prompts), lengths_of(kind, options.prompts), strict=True)
            files[kind] = folder / f"{kind}.jsonl"
            files[kind].write_text(
                "".join(
                    json.dumps({"id": str(i), "prompt": prompt, "max_tokens": length}) + "\n"
                    for i, (prompt, length) in enumerate(rows)
                )
            )
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent)])
        engine = VLLMEngine(
            model,
            EngineRuntime(
                engine="vllm",
                window=options.window,
                in_process=False,
                vllm=ARGUMENTS | {"middleware": ["peers.clock.Clock"]},
            ),
        )
        engine._key = ""  # datatrove sends none to a server on this machine
        rates: dict[tuple[str, str], list[tuple[float, float]]] = {}
        runtime = EngineRuntime(engine="vllm", window=options.window, vllm=ARGUMENTS)
        with ExitStack() as stack:
            direct = stack.enter_context(VLLMEngine(model, runtime))
            own = descendants(os.getpid())
            stack.callback(send, signal.SIGCONT, own)  # else they could not end
            send(signal.SIGSTOP, own)
            stack.enter_context(engine)
            others = descendants(os.getpid()) - own
            stack.callback(send, signal.SIGCONT, others)

            def in_process(prompts: Path) -> dict[str, float]:
                send(signal.SIGSTOP, others)
                send(signal.SIGCONT, own)
                found = measure(direct, runtime, prompts, Path(tempfile.mkdtemp(dir=folder)))
                send(signal.SIGSTOP, own)
                send(signal.SIGCONT, others)
                return found

            server = f"http://127.0.0.1:{engine._servers[0].port}"

            def behind_server(name: str, prompts: Path) -> dict[str, float]:
                command = [pythons[name], HERE / "peers" / f"run_{name}.py", f"{server}/v1"]
                command += [str(2 * options.window), prompts, tempfile.mkdtemp(dir=folder)]
                environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
                if name == "hubkit":
                    environment["PYTHONPATH"] = str(HERE.parent)
                _clock(server)
                run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
                if run.returncode:
                    raise SystemExit(f"{name} failed:\n{run.stderr[-3000:]}")
                return json.loads(run.stdout.splitlines()[-1]) | {"at_server": _clock(server)["seconds"]}

            for number in range(options.rounds + 1):
                for kind in options.lengths:
                    wanted = sum(lengths_of(kind, options.prompts))
                    names = list(pythons)
                    for name in names[number % len(names) :] + names[: number % len(names)]:
                        client = in_process if name == IN_PROCESS else partial(behind_server, name)
                        found = client(files[kind])
                        assert found["tokens"] == wanted, f"{name}: {found['tokens']} of {wanted} tokens"
                        # Without a server there is no clock in it: all of the call counts.
                        at_server, whole = found.get("at_server", found["seconds"]), found["seconds"]
                        print(
                            f"round {number} {kind:<12} {name:<11} {wanted / at_server:>7.0f} tokens/s at the "
                            f"server, {wanted / whole:>7.0f} of the whole call",
                            flush=True,
                        )
                        if number:
                            rates.setdefault((kind, name), []).append((wanted / at_server, wanted / whole))
    print(f"\nmedians of {options.rounds} rounds, {options.prompts} prompts, window {options.window}")
    for kind in options.lengths:
        base = [at_server for at_server, _ in rates[kind, "hubkit"]]
        for name in pythons:
            at_server, whole = zip(*rates[kind, name], strict=True)
            ratios = ", ".join(f"{rate / own:.2f}" for rate, own in zip(at_server, base, strict=True))
            print(
                f"{kind:<12} {name:<11} {statistics.median(at_server):>7.0f} tokens/s at the server "
                f"(of hubkit's, by round: {ratios}), {statistics.median(whole):>7.0f} of the whole call"
            )


def _clock(server: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{server}/clock") as reply:
        read: dict[str, float] = json.load(reply)
        return read


if __name__ == "__main__":
    main()
