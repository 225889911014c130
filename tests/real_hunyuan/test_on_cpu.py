"""The unmodified sample_video.py of HunyuanVideo from request to film, on a CPU with tiny random weights.

Needs, besides HUNYUAN_DIR, a Python named by HUNYUAN_PYTHON with what it requires: torch, diffusers 0.31, transformers
4.46.3, einops, imageio with its ffmpeg, loguru, accelerate.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reelwright import load_settings
from reelwright.core.errors import VideoGenerationError
from reelwright.core.events import Event, Phase, Progress
from reelwright.core.request import VideoRequest
from reelwright.runs.order import Order
from reelwright.runs.runner import generate
from tests.real_hunyuan.conftest import checkout_of

HERE = Path(__file__).parent
ASK_SITE = "import sys; print(*(path for path in sys.path if not path.startswith(sys.base_prefix)), sep='\\n')"
FP32 = "".join(
    f"{name}: fp32\n" for name in ("precision", "vae_precision", "text_encoder_precision", "text_encoder_precision_2")
)
CJK = "一只橘猫在阳光下慢慢转过头来看着镜头" * 8

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not os.environ.get("HUNYUAN_PYTHON"), reason="HUNYUAN_PYTHON names no interpreter"),
]


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings for the real checkout, with an environment over the named one and weights that it made itself."""
    folder, checkout = tmp_path_factory.mktemp("cpu"), checkout_of("t2v")
    named = Path(os.environ["HUNYUAN_PYTHON"])
    found = subprocess.run([str(named), "-c", ASK_SITE], capture_output=True, text=True, check=True).stdout.split()
    base = subprocess.run(
        [str(named), "-c", "import sys; print(sys._base_executable)"], capture_output=True, text=True, check=True
    )
    subprocess.run([base.stdout.strip(), "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    (site,) = (folder / "env" / "lib").glob("python3*/site-packages")
    (site / "real.pth").write_text("\n".join(found) + "\n")
    subprocess.run(["cp", "-r", *map(str, (HERE / "cpu").iterdir()), str(site)], check=True)
    python = folder / "env" / "bin" / "python"
    command = [str(python), "-B", str(HERE / "make_weights.py"), str(folder / "weights")]
    subprocess.run(command, cwd=checkout, check=True)
    (folder / "options.yaml").write_text(FP32)  # half precision is not for every operator of a CPU
    return {
        "generator": "hunyuan",
        "hunyuan_dir": str(checkout),
        "python": str(python),
        "ckpt_path": str(folder / "weights"),
        "config_file": str(folder / "options.yaml"),
        "simulate_gpus": "1x80GiB",
        "size": "192x128",
        "state_dir": str(folder / "state"),
        "retry_policy": "none",
    }


@pytest.mark.parametrize("prompt", ["a cat walks on the grass", CJK], ids=["short", "chinese"])
def test_the_real_script_makes_the_promised_film(values: dict[str, Any], tmp_path: Path, prompt: str) -> None:
    events: list[Event] = []
    request = VideoRequest(prompt=prompt, num_frames=5, steps=2, seed=7)
    result = generate(Order(request, load_settings(environ={}, arguments=values), tmp_path / "cat.mp4"), events.append)
    assert (result.width, result.height, result.num_frames, result.fps) == (192, 128, 5, 24.0)
    phases = [event.name for event in events if isinstance(event, Phase)]
    loading = ["loading transformer", "loading VAE", "loading text encoder", "loading CLIP"]
    assert phases[:9] == ["starting", *loading, "encoding", "denoising", "decoding", "saving"]
    assert [event.step for event in events if isinstance(event, Progress)] == [1, 2]


def test_weights_that_are_cut_off_are_told_before_the_start(values: dict[str, Any], tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    subprocess.run(["cp", "-r", values["ckpt_path"], str(weights)], check=True)
    main = weights / "hunyuan-video-t2v-720p" / "transformers" / "mp_rank_00_model_states.pt"
    os.truncate(main, main.stat().st_size - 100)
    settings = load_settings(environ={}, arguments={**values, "ckpt_path": str(weights)})
    with pytest.raises(VideoGenerationError, match="cut off") as caught:
        generate(Order(VideoRequest(prompt="a cat", num_frames=5, steps=2), settings, tmp_path / "cat.mp4"))
    assert caught.value.code == "MODEL"
    assert sys.executable != values["python"]
