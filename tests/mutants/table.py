"""The mistakes: one changed line each, and the tests near it that must notice.

A name says what the product would do then. When the source changes, a text may have to be taken from it anew.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A mistake.

    Attributes:
        area: The part of the product.
        name: What the product does then.
        file: Below ``src/reelwright``.
        old: The text, in the file exactly once.
        new: What takes its place.
        tests: Arguments of pytest; what stands after ``-k`` is one expression.
    """

    area: str
    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "publishing",
        "a placed file may be lost with the power",
        "workspace.py",
        "    files.fsync(source)\n",
        "",
        "tests/runner/test_publish.py -k placed",
    ),
    Mutant(
        "publishing",
        "skip takes somebody's manifest for a film",
        "workspace.py",
        'if if_exists == "skip" and os.path.lexists(output):',
        'if if_exists == "skip":',
        "tests/runner/test_publish.py -k skip",
    ),
    Mutant(
        "publishing",
        "a film has its name before it is on the disk",
        "workspace.py",
        "        files.fsync(video)\n",
        "",
        "tests/runner/test_publish.py -k on_the_disk",
    ),
    Mutant(
        "publishing",
        "a film that came later is replaced",
        "workspace.py",
        "            _rename_noreplace(source, target)\n",
        "            source.replace(target)\n",
        "tests/runner/test_publish.py",
    ),
    Mutant(
        "publishing",
        "somebody's manifest is replaced",
        "workspace.py",
        "        if not replace and os.path.lexists(manifest_path(output)):",
        "        if False:",
        "tests/runner/test_publish.py tests/runner/test_recovery.py",
    ),
    Mutant(
        "publishing",
        "a dangling link is taken for a free name",
        "workspace.py",
        "    return os.path.lexists(output) or os.path.lexists",
        "    return os.path.exists(output) or os.path.lexists",
        "tests/runner/test_publish.py",
    ),
    Mutant(
        "publishing",
        "a name without room for its manifest is accepted",
        "workspace.py",
        "    if longest > MAX_NAME_BYTES:",
        "    if longest > 2 * MAX_NAME_BYTES:",
        "tests/runner/test_publish.py -k d10",
    ),
    Mutant(
        "publishing",
        "the lock does not say which output the run has",
        "workspace.py",
        "                os.write(fd, note)\n",
        "",
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "publishing",
        "a request to stop during verification is not heard",
        "runner.py",
        "    run.cancellation.check()  # the last chance: what is published stays\n",
        "",
        "tests/runner/test_publish.py -k request_to_stop",
    ),
    Mutant(
        "recovery",
        "the film of another attempt is adopted",
        "recovery.py",
        'if _digest(Path(name), facts, patience, dir_fd=inside) == facts["sha256"]:',
        "if _digest(Path(name), facts, patience, dir_fd=inside) is not None:",
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "recovery",
        "a film is adopted for its size alone",
        "recovery.py",
        "                digest.update(chunk)\n                patience()\n    except OSError:\n        return None\n    return digest.hexdigest()",
        '                digest.update(chunk)\n                patience()\n    except OSError:\n        return None\n    return str(facts["sha256"])',
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "recovery",
        "what is no film is published",
        "recovery.py",
        "        if not _keeps_its_promise(film, facts, patience):",
        "        if False:",
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "recovery",
        "a folder that is open to others is trusted",
        "recovery.py",
        " or status.st_mode & 0o077:",
        ":",
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "recovery",
        "a manifest may name any output",
        "recovery.py",
        'if facts["path"] != output.name or intent.run_id',
        "if intent.run_id",
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "recovery",
        "a lock may name any file",
        "recovery.py",
        " or not _is_output_name(name):",
        ":",
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "recovery",
        "a planted marker replaces a film",
        "recovery.py",
        "workspace.identity(path) in (None, marker.get(kind))",
        "bool(path)",
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "recovery",
        "files of the user in a run folder are removed",
        "recovery.py",
        "        if unknown:\n",
        "        if not unknown and unknown:\n",
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "recovery",
        "an attempt that is a link is followed",
        "recovery.py",
        "os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)",
        "os.O_CLOEXEC, dir_fd=self.fd)",
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "recovery",
        "a film whose name is taken is left for ever",
        "recovery.py",
        "        if workspace.is_taken(output) and not replace:",
        "        if replace:",
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "recovery",
        "a living run is cleared",
        "recovery.py",
        "            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it lives\n",
        "",
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "recovery",
        "the work has no end",
        "recovery.py",
        "        if time.monotonic() > self.deadline:",
        "        if self.deadline < 0:",
        "tests/runner/test_recovery.py",
    ),
    Mutant(
        "frames",
        "the first frame is handed on, not the last",
        "executors/frames.py",
        "np.ascontiguousarray(frames[-1])",
        "np.ascontiguousarray(frames[0])",
        "tests/executors/test_frames.py",
    ),
    Mutant(
        "frames",
        "frames of another size become a film",
        "executors/frames.py",
        "    if found != expected or min(shape) < 1:",
        "    if min(shape) < 1:",
        "tests/executors/test_frames.py",
    ),
    Mutant(
        "frames",
        "a request to stop is not heard while encoding",
        "executors/frames.py",
        "            check()\n",
        "",
        "tests/executors/test_frames.py",
    ),
    Mutant(
        "frames",
        "the frames stay on the disk",
        "executors/frames.py",
        "    source.unlink()\n",
        "",
        "tests/executors/test_frames.py",
    ),
    Mutant(
        "workers",
        "GPUs of a worker that is being ended are given away",
        "executors/workers.py",
        "(*(turn.gpus for turn in before), *self._ending))",
        "tuple(turn.gpus for turn in before))",
        "tests/workers/test_turns.py",
    ),
    Mutant(
        "workers",
        "nobody waits for those who came before",
        "executors/workers.py",
        "        before = self._turns[: self._turns.index(mine)]\n",
        "        before: list[Turn] = []\n",
        "tests/workers/test_turns.py",
    ),
    Mutant(
        "workers",
        "a worker with a turn is ended as idle",
        "executors/workers.py",
        "for held in wanted if not any(held & other for other in busy)",
        "for held in wanted if held or not busy",
        "tests/workers/test_turns.py",
    ),
    Mutant(
        "workers",
        "GPUs of a worker that could not be ended are lost",
        "executors/workers.py",
        "            finally:\n                with self._changed:\n                    self._ending.remove(held)",
        "            finally:\n                with self._changed:\n                    self._ending.count(held)",
        "tests/workers/test_turns.py",
    ),
    Mutant(
        "latents",
        "latents of another seed are taken",
        "backends/diffusers/__init__.py",
        'if name not in ("image", "last_image", "decode", "codec")',
        'if name not in ("image", "last_image", "decode", "codec", "seed")',
        "tests/backends/test_diffusers.py -k latents_key",
    ),
    Mutant(
        "latents",
        "latents of another prompt are taken",
        "backends/diffusers/__init__.py",
        'if name not in ("image", "last_image", "decode", "codec")',
        'if name not in ("image", "last_image", "decode", "codec", "prompt")',
        "tests/backends/test_diffusers.py -k latents_key",
    ),
    Mutant(
        "latents",
        "latents of another last picture are taken",
        "backends/diffusers/__init__.py",
        "for picture in (job.first, job.last)]",
        "for picture in (job.first,)]",
        "tests/backends/test_diffusers.py -k latents_key",
    ),
    Mutant(
        "latents",
        "latents of another file of the LoRA are taken",
        "backends/diffusers/__init__.py",
        "for found in (choice.checkpoint, *beside) if found]",
        "for found in (choice.checkpoint,) if found]",
        "tests/backends/test_diffusers.py -k latents_key",
    ),
    Mutant(
        "latents",
        "latents without the LoRA are taken",
        "backends/diffusers/__init__.py",
        'for name, value in model.items() if name != "placements"}',
        'for name, value in model.items() if name not in ("placements", "speed")}',
        "tests/backends/test_diffusers.py -k latents_key",
    ),
    Mutant(
        "leases",
        "those who came later go first",
        "machine/leases.py",
        "                    holder = _ahead(folder, wanted, place)\n",
        "                    holder = None\n",
        "tests/machine/test_leases.py",
    ),
    Mutant(
        "leases",
        "a deleted lock locks nobody out",
        "machine/leases.py",
        "            if os.fstat(fd).st_ino == os.stat(name, dir_fd=folder).st_ino:\n",
        "            if os.fstat(fd).st_ino:\n",
        "tests/machine/test_leases.py",
    ),
    Mutant(
        "leases",
        "a folder that others may write is used",
        "machine/leases.py",
        " or stat.S_IMODE(found.st_mode) & 0o022:",
        ":",
        "tests/machine/test_leases.py",
    ),
    Mutant(
        "leases",
        "some GPUs of several are kept on failure",
        "machine/leases.py",
        "            taken.callback(os.close, fd)\n",
        "",
        "tests/machine/test_leases.py",
    ),
    Mutant(
        "files",
        "a file that others may write is taken for our own",
        "files.py",
        "    if owned and not (",
        "    if owned and status.st_uid < 0 and not (",
        "tests/values/test_files.py",
    ),
    Mutant(
        "files",
        "JSON may be nested as it likes",
        "files.py",
        "    for _ in range(MAX_DEPTH):",
        "    for _ in range(10 * MAX_DEPTH):",
        "tests/values/test_files.py",
    ),
    Mutant(
        "files",
        "a pipe is opened",
        "files.py",
        "    if kind != stat.S_IFREG:",
        "    if kind == stat.S_IFDIR:",
        "tests/values/test_files.py tests/runner/test_strange_files.py",
    ),
    Mutant(
        "manifest",
        "a film may lie anywhere",
        "result.py",
        " or name != Path(name).name:",
        ":",
        "tests/values/test_values.py",
    ),
    Mutant(
        "manifest",
        "a replay takes a picture that cannot be read",
        "runner.py",
        "        if digest is None or digest != item.get",
        "        if digest is not None and digest != item.get",
        "tests/runner/test_strange_files.py -k replay",
    ),
    Mutant(
        "history",
        "nonsense chooses a placement",
        "history.py",
        "    if placement in known and",
        "    if placement and",
        "tests/runner/test_strange_files.py -k nonsense",
    ),
)
