"""Makes a stand-in for a framework's own Python: a virtual environment with packages present, absent or broken.

It is a real environment in miniature (a link, a pyvenv.cfg, a site-packages), so it works with a cleaned
environment, for `-m torch.distributed.run` and for its workers. numpy, Pillow and PyAV come from the test
suite's own packages.

    >>> make_interpreter(Path("/tmp/env"), Knobs(flash_attn="absent"))  # doctest: +SKIP
    PosixPath('/tmp/env/bin/python')
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["present", "absent", "broken"]

_PACKAGES = Path(__file__).with_name("packages")
# The other packages in the frameworks' requirements; only their versions matter.
_OTHERS = {
    "torchvision": "0.24.0+cu128",
    "diffusers": "0.35.2",
    "transformers": "4.57.3",
    "tokenizers": "0.22.1",
    "accelerate": "1.12.0",
    "tqdm": "4.67.1",
    "imageio": "2.37.2",
    "imageio_ffmpeg": "0.6.0",
    "easydict": "1.13",
    "ftfy": "6.3.1",
    "dashscope": "1.25.0",
    "einops": "0.8.1",
    "regex": "2025.11.3",
    # The HunyuanVideo family also needs these.
    "loguru": "0.7.3",
    "deepspeed": "0.15.1",
    "tensorboard": "2.19.0",
    "psutil": "7.1.3",
    "safetensors": "0.6.2",
}
# An "ffmpeg" that starts and succeeds.
_WRITER = 'def get_ffmpeg_exe():\n    return "true"\n'
# From Wan2.2#108: a wheel built for another torch.
_UNDEFINED = (
    "{folder}/{name}_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: "
    "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx11"
    "12basic_stringIcSt11char_traitsIcESaIcEEE"
)


@dataclass(frozen=True)
class Knobs:
    """The packages that a stand-in interpreter has, and the GPUs that it sees.

    Attributes:
        cuda: CUDA of the torch build; ``None`` is a build for the CPU.
        devices: GPUs that torch sees without CUDA_VISIBLE_DEVICES.
        real_torch: Use the torch of the test suite's own environment, with the real torchrun, instead of a stand-in. It
            counts as a build with CUDA, which a framework needs when it is imported.
        absent: Names of other packages that are not installed ("torch", "easydict", ...).
        numpy: The version in the metadata of numpy; the frameworks require one below 2.
    """

    torch: str = "2.9.1+cu128"
    cuda: str | None = "12.8"
    devices: int = 8
    flash_attn: State = "present"
    flash_attn_interface: State = "absent"
    xfuser: State = "present"
    real_torch: bool = False
    absent: tuple[str, ...] = ()
    numpy: str = "1.26.4"


def make_interpreter(folder: Path, knobs: Knobs | None = None) -> Path:
    """Make the environment in ``folder``, which is replaced if it exists, and return the path of its Python."""
    knobs = knobs or Knobs()
    shutil.rmtree(folder, ignore_errors=True)
    site = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    base = Path(sys._base_executable)  # type: ignore[attr-defined]
    python = folder / "bin" / "python"
    python.symlink_to(base)
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n", "utf-8")
    facts = {"cuda_devices": knobs.devices, "assume_cuda": knobs.real_torch}
    (folder / "stand_in.json").write_text(json.dumps(facts), "utf-8")
    own = next(path for path in sys.path if (Path(path) / "av").is_dir())
    # A .pth file adds a folder after this one, so the stand-ins come first.
    (site / "test_suite.pth").write_text(own + "\n", "utf-8")
    _claim(site, "numpy", knobs.numpy)
    for name, version in _OTHERS.items():
        if name not in knobs.absent:
            (site / name).mkdir()
            text = f'__version__ = "{version}"\n' + (_WRITER if name == "imageio_ffmpeg" else "")
            (site / name / "__init__.py").write_text(text, "utf-8")
    if "torch" not in knobs.absent and not knobs.real_torch:
        shutil.copytree(_PACKAGES / "torch", site / "torch")
        (site / "torch" / "version.py").write_text(f"__version__ = {knobs.torch!r}\ncuda = {knobs.cuda!r}\n", "utf-8")
    for name in ("flash_attn", "flash_attn_interface", "xfuser"):
        set_package(python, name, getattr(knobs, name))
    set_package(python, "yunchang", "absent" if knobs.xfuser == "absent" else "present")  # xfuser requires it
    return python


def _claim(site: Path, name: str, version: str) -> None:
    """Write a version into a package's metadata; an import still gives the test suite's own package."""
    (site / f"{name}-{version}.dist-info").mkdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (site / f"{name}-{version}.dist-info" / "METADATA").write_text(text, "utf-8")


def set_package(python: Path, name: str, state: State) -> None:
    """Install, break or remove one package."""
    site = next((python.parent.parent / "lib").glob("python3.*")) / "site-packages"
    package = site / name
    shutil.rmtree(package, ignore_errors=True)
    if state == "absent":
        return
    source = _PACKAGES / name
    shutil.copytree(source if source.is_dir() else _PACKAGES / "flash_attn", package)
    if state == "broken":
        error = _UNDEFINED.format(folder=site, name=name)
        (package / "__init__.py").write_text(f"raise ImportError({error!r})\n", "utf-8")
