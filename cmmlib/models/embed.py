"""Images -> embeddings, each computed once: a content-addressed cache that no kill and no race damages.

The key of an entry is what it was computed from: weights, preprocessing, precision, and the data's own digests. So a
renamed folder finds its embeddings again, a changed image does not, and two processes can share one cache.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from cmmlib.data.images import ImageSet
from cmmlib.errors import InputError, one_line
from cmmlib.models.backbones import Backbone, load_backbone
from cmmlib.models.load_errors import WORKER_ENDED
from cmmlib.storage.cache import cache_folder, cached, digest, save_tensors

IMAGE_SHARD = 512  # images a cache file: what a kill can cost
PIXELS: tuple[int, ...] = ()  # part of the key: (1,), (2,) ... once reading or resizing gives other pixels than before


class OneTooMany(InputError):
    """An image that cannot be read, after as many as are let pass."""


class _Decoded(TorchDataset):
    """Preprocessed images of a shard. An image that cannot be read gives the error that names it.

    The error is returned, not raised: a worker process would wrap what it raises in its traceback.
    """

    def __init__(self, data: ImageSet, rows: range, preprocess):
        self.data, self.rows, self.preprocess = data, rows, preprocess

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor | InputError:
        try:
            return self.preprocess(self.data.read(self.rows[index]))
        except InputError as error:
            return error
        except Exception as error:  # torchvision raises several kinds for a size that no image can have
            image = self.data.image_ids[self.rows[index]]
            return InputError(f"cannot bring image {image} to the model's size: {one_line(error)}; repair or remove it")


def embed_images(
    backbone: Backbone,
    data: ImageSet,
    *,
    batch_size: int = 64,
    workers: int = 0,
    storage: str = "float32",
    max_broken: int = 0,
) -> Float[Tensor, "N D"]:
    """Unit-norm embeddings of every image, through the cache, a shard at a time.

    Where the backbone has several devices, each has a process, and the processes take shards as they become free.

    Args:
        batch_size: images a forward pass; changes speed, and embeddings by float rounding only.
        workers: processes that decode, for each device; 0 decodes in the one that embeds.
        storage: `float32`, or `float16` for half the disk.
        max_broken: how many unreadable images are let pass.

    Returns:
        [N, D], float32, in the data set's order; an image that was let pass has a row of NaN.

    Raises:
        InputError: an unreadable image too many, named by its path; a model that gives no finite embedding of an image
            that can be read; a process that was ended from outside.
    """
    try:
        parts = _embed_shards(backbone, data, batch_size, workers, storage, max_broken)
    except OneTooMany as error:
        limit = f"max_broken lets {max_broken} pass, and this is one more" if max_broken else "or set max_broken"
        raise InputError(f"{error} ({limit})") from None
    x = torch.nn.functional.normalize(torch.cat(parts), dim=-1)
    if x.isnan().any(1).all():
        first = _Decoded(data, range(1), backbone.preprocess)[0]
        raise (
            first
            if isinstance(first, InputError)
            else InputError(f"no image of {data.name} could be read, and a moment later the first can: run again")
        )
    return x


def _embed_shards(
    backbone: Backbone, data: ImageSet, batch_size: int, workers: int, storage: str, max_broken: int
) -> list[Tensor]:
    shards = list(_shards(backbone, data, storage))
    if len(backbone.devices) > 1:
        new = [shard for shard in shards if not shard[1].exists()]
        _embed_in_processes(backbone, data, new, batch_size, workers, storage, max_broken)
    parts, left = [], max_broken
    for shard, path in tqdm(shards, "image embeddings", unit="shard", disable=None):

        def compute(shard=shard, left=left) -> dict[str, Tensor]:
            return {"x": _encode_shard(backbone, data, shard, batch_size, workers, storage, left)}

        was_there = path.exists()
        x = cached(path, compute)["x"]
        if was_there and _n_broken(x):
            x = _tried_again(backbone, data, shard, path, x, batch_size, left)
        left -= _n_broken(x)
        parts.append(x.float())
    return parts


def _tried_again(
    backbone: Backbone, data: ImageSet, rows: range, path: Path, x: Tensor, batch_size: int, max_broken: int
) -> Tensor:
    """A shard of the cache with another try of its images that could not be read, which is stored where one now can.

    What failed may have been a disk, the memory or a reader that was not installed. The model is loaded only for an
    image that can be read.
    """
    images = _Decoded(data, rows, lambda image: backbone.preprocess(image))
    broken, errors, x = x.isnan().any(1).nonzero()[:, 0].tolist(), [], x.clone()
    for start in range(0, len(broken), batch_size):
        tried = broken[start : start + batch_size]
        pixels, failed = _batch([images[i] for i in tried])
        if pixels is not None:
            whole = [i for n, i in enumerate(tried) if n not in failed]
            x[whole] = _finite(backbone, data, [rows[i] for i in whole], backbone.encode_images(pixels)).to(x.dtype)
        errors += failed.values()
    if len(errors) < len(broken):
        with suppress(OSError):  # a cache that may only be read
            save_tensors(path, {"x": x})
    if len(errors) > max_broken:  # kept by a run that let more pass
        raise OneTooMany(str(errors[max_broken]))
    return x


def _shards(backbone: Backbone, data: ImageSet, storage: str) -> Iterator[tuple[range, Path]]:
    """Rows of each shard, and the file that holds or will hold their embeddings."""
    for start in range(0, len(data), IMAGE_SHARD):
        rows = range(start, min(start + IMAGE_SHARD, len(data)))
        key = digest("image", backbone.digest, backbone.precision, storage, [data.digests[i] for i in rows], *PIXELS)
        yield rows, cache_folder() / "images" / f"{key}.safetensors"


def _encode_shard(
    backbone: Backbone, data: ImageSet, rows: range, batch_size: int, workers: int, storage: str, max_broken: int
) -> Tensor:
    """Embeddings of the rows, NaN for at most `max_broken` images that cannot be read."""
    images = _Decoded(data, rows, backbone.preprocess)
    parts: list[Tensor] = []
    failures: dict[int, InputError] = {}
    with _told_of_workers():
        for n, (pixels, errors) in enumerate(DataLoader(images, batch_size, num_workers=workers, collate_fn=_batch)):
            failures |= {n * batch_size + i: error for i, error in errors.items()}
            if len(failures) > max_broken:
                break  # to raise in the loop would keep its worker processes alive as long as the traceback
            if pixels is not None:
                parts.append(backbone.encode_images(pixels))
    if len(failures) > max_broken:
        raise OneTooMany(str(list(failures.values())[max_broken]))
    if not parts:  # the model's width is that of any image
        parts = [backbone.encode_images(backbone.preprocess(Image.new("RGB", (64, 64)))[None])[:0]]
    whole = torch.tensor([i not in failures for i in range(len(rows))])
    x = torch.full((len(rows), parts[0].shape[1]), torch.nan)
    x[whole] = _finite(backbone, data, [rows[i] for i in whole.nonzero()[:, 0].tolist()], torch.cat(parts))
    return x.to(getattr(torch, storage))


@contextmanager
def _told_of_workers() -> Iterator[None]:
    """A process that decodes and was ended from outside, in one line; torch raises it wherever this process is."""
    try:
        yield
    except RuntimeError as error:
        if not WORKER_ENDED.search(str(error)):
            raise
        raise InputError(
            "workers: a process that decodes images was ended from outside, perhaps for want of memory (in Docker: of "
            "shared memory): run again with fewer --workers, or docker run --shm-size=4g; what was embedded is kept"
        ) from None


def _finite(backbone: Backbone, data: ImageSet, rows: list[int], x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Embeddings of these rows, or the refusal: NaN in the cache means an image that cannot be read, and these can."""
    lost = ~is_embedding(x)
    if lost.any():
        raise no_numbers(backbone, data.image_ids[rows[int(lost.nonzero()[0])]])
    return x


def is_embedding(x: Float[Tensor, "N D"]) -> Bool[Tensor, "N"]:
    """Whether rows are finite and have a direction."""
    return x.isfinite().all(1) & (x != 0).any(1)


def no_numbers(backbone: Backbone, what: str) -> InputError:
    """The refusal of a model that gives NaN, Inf or zeros for an image or a text, which is named."""
    model = f"backbone: {backbone.public_name} in {backbone.precision}"
    remedy = "use other weights" if backbone.precision == "fp32" else "use --precision fp32, or other weights"
    return InputError(f"{model} gives no finite embedding of {what}: {remedy}")


def _batch(images: list[Tensor | InputError]) -> tuple[Tensor | None, dict[int, InputError]]:
    """The images that could be decoded, stacked, and the errors of the others by their place in the batch."""
    errors = {i: image for i, image in enumerate(images) if isinstance(image, InputError)}
    decoded = [image for image in images if isinstance(image, Tensor)]
    return torch.stack(decoded) if decoded else None, errors


def _n_broken(x: Float[Tensor, "N D"]) -> int:
    return int(x.isnan().any(1).sum())


# ---------------------------------------------------------------- several devices


def _embed_in_processes(
    backbone: Backbone,
    data: ImageSet,
    shards: list[tuple[range, Path]],
    batch_size: int,
    workers: int,
    storage: str,
    max_broken: int,
) -> None:
    """Fill the cache with shards, a process a device. `max_broken` holds for each shard; `embed_images` adds up.

    Shards are independent and the cache is addressed by content, so processes have nothing to tell each other: no
    process group, no gathering. Whoever is free takes the next shard, so a slow device holds up nobody, and what a kill
    leaves is what it leaves with one process.
    """
    n = min(len(backbone.devices), len(shards))
    if not n:
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    devices = context.SimpleQueue()
    for device in backbone.devices[:n]:
        devices.put(str(device))
    threads = max(1, torch.get_num_threads() // n)
    model = (backbone.name, backbone.pretrained, backbone.precision)
    with ProcessPoolExecutor(n, context, _begin, (devices, threads, model, data)) as pool:
        tasks = [pool.submit(_embed_shard, *shard, batch_size, workers, storage, max_broken) for shard in shards]
        try:
            for task in tqdm(as_completed(tasks), "shared out", len(tasks), unit="shard", disable=None):
                task.result()
        except BrokenProcessPool:
            raise InputError(
                "device: a process was ended from outside, perhaps for want of memory: "
                "run again, with a smaller batch_size; what was embedded is kept"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)  # shards that were begun are finished, and kept


_own: tuple[Backbone, ImageSet]  # what this process embeds, and with what


def _begin(devices, threads: int, model: tuple[str, str | None, str], data: ImageSet) -> None:
    """The start of a process: takes a device. Ctrl-C reaches all processes; the first one decides what it means."""
    global _own
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    name, pretrained, precision = model
    _own = load_backbone(name, pretrained, devices.get(), precision), data


def _embed_shard(rows: range, path: Path, batch_size: int, workers: int, storage: str, max_broken: int) -> None:
    backbone, data = _own
    cached(path, lambda: {"x": _encode_shard(backbone, data, rows, batch_size, workers, storage, max_broken)})


def missing(backbone: Backbone, data: ImageSet, storage: str = "float32") -> int:
    """Number of images whose embeddings are not in the cache."""
    shards = _shards(backbone, data, storage)
    return sum(len(shard) for shard, path in shards if not path.exists())
