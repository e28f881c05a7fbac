"""Predicting whole images between two trainings, as ST++ does (Yang et al. 2022), on all ranks.

Image i of a list is of rank i modulo their number, so any number of ranks makes the same.
Legend: C classes, H x W pixels.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from datasets.dataset import Dataset
from datasets.images.decode import indexed_png
from datasets.loading.loader import whole_images
from trainer.config.schema import TrainConfig
from trainer.distributed import Ranks
from trainer.evaluate import ConfusionMatrix
from trainer.feed import decoded_cache, to_device
from trainer.network.deeplab import normalise, upsample
from trainer.stages.products import Products

SCALES = (0.5, 0.75, 1.0, 1.5, 2.0)  # of the image, each as it is and mirrored
_CHECKED = 100  # masks that are read between two signs of life


@torch.no_grad()
def augmented_classes(network: nn.Module, image: Tensor) -> Tensor:
    """Class ids (H, W), uint8, by the sum of probabilities over scales and mirror images.

    Args:
        network: in evaluation mode.
        image: uint8 (3, H, W), on the network's device.
    """
    pixels = normalise(image[None])
    height, width = image.shape[1:]
    total: Tensor | None = None
    for scale in SCALES:
        size = max(int(height * scale), 1), max(int(width * scale), 1)
        scaled = upsample(pixels, size, "bilinear").contiguous(memory_format=torch.channels_last)
        for flips in (False, True):
            logits = network(scaled.flip(3) if flips else scaled)
            probability = functional.softmax(logits.float(), 1)
            back = probability.flip(3) if flips else probability
            whole = upsample(back, (height, width), "bilinear")
            total = whole if total is None else total + whole
    assert total is not None
    return total.max(1).indices[0].to(torch.uint8)


@torch.no_grad()
def image_miou(network: nn.Module, image: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Mean IoU of a prediction with another one of the same image, a float64 scalar in [0, 1].

    The mean is over the classes that either of them shows.

    Args:
        network: in evaluation mode.
        image: uint8 (3, H, W).
        truth: the other prediction, class ids (H, W).
        num_classes: C.
    """
    matrix = ConfusionMatrix(num_classes).to(image.device)
    matrix.update(network(normalise(image[None])).max(1).indices[0], truth)
    return matrix.compute().nanmean() / 100.0


@dataclass(frozen=True)
class Labelling:
    """Work on unlabelled images before a stage, on all ranks together.

    Attributes:
        tick: see `trainer.methods.interface.StageInput`.
    """

    config: TrainConfig
    ranks: Ranks
    dataset: Dataset
    tick: Callable[[str, int, int], None]

    def by_reliability(
        self,
        names: Sequence[str],
        products: Products,
        networks: Sequence[str],
        kept: Callable[[str], nn.Module],
    ) -> list[str]:
        """The images, those first whose prediction changed least while the network was trained.

        An image's reliability is the mean, over earlier networks, of the mean IoU of their
        predictions with those of the last one. Images of equal reliability keep their order.

        Args:
            names: of the images.
            products: where the numbers are kept.
            networks: names of the earlier ones and, at the end, of the last one.
            kept: gives a network by its name; called only where needed.
        """
        known = products.recorded("reliability")
        # Made again for all ranks if one lacks it: they may not share a folder.
        if self.ranks.sum(torch.tensor(known is None, device=self.ranks.device).long()).item():
            *earlier, last = [kept(network) for network in networks]
            values = self._reliability(names, earlier, last)
            known = dict(zip(names, values, strict=True))
            products.record("reliability", known)
        assert known is not None
        return sorted(names, key=known.__getitem__, reverse=True)

    @torch.no_grad()
    def _reliability(
        self, names: Sequence[str], earlier: Sequence[nn.Module], last: nn.Module
    ) -> list[float]:
        values = torch.zeros(len(names), dtype=torch.float64, device=self.ranks.device)
        classes = self.dataset.num_classes
        with closing(self._rounds("reliability", names)) as rounds:
            for first, image in rounds:
                if image is not None:
                    truth = last(normalise(image[None])).max(1).indices[0]
                    mious = [image_miou(network, image, truth, classes) for network in earlier]
                    values[first + self.ranks.rank] = torch.stack(mious).mean()
        return [float(value) for value in self.ranks.sum(values).tolist()]

    def masks(
        self, names: Sequence[str], products: Products, network: Callable[[], nn.Module]
    ) -> None:
        """Predict the masks of images, but those that are there and whole.

        Args:
            names: of the images.
            products: where the masks are kept.
            network: gives the one that predicts; called only where a mask is wanted.
        """
        known = products.recorded("masks") or {}
        sums = self._sums(names, products)
        lacks = [value is None or known.get(name, value) != value for name, value in sums.items()]
        # As above, a mask is made again for all ranks if one lacks it.
        wanted = self.ranks.sum(torch.tensor(lacks, device=self.ranks.device).long()).tolist()
        missing = [name for name, count in zip(names, wanted, strict=True) if count]
        if missing:
            self._predict(missing, products, network())
            sums |= self._sums(missing, products)
        if sums != known:
            products.record("masks", sums)

    def _sums(self, names: Sequence[str], products: Products) -> dict[str, str | None]:
        """Sha256 of the masks that are there and whole; of many it takes minutes."""
        sums: dict[str, str | None] = {}
        for done, name in enumerate(names, 1):
            sums[name] = products.mask_sha256(name)
            if done % _CHECKED == 0:
                self.tick("checked masks", done, len(names))
        return sums

    def _predict(self, names: Sequence[str], products: Products, network: nn.Module) -> None:
        with closing(self._rounds("masks", names)) as rounds:
            for first, image in rounds:
                png = b""
                if image is not None:
                    classes = augmented_classes(network, image).cpu().numpy()
                    png = indexed_png(Image.fromarray(classes), self.dataset.spec)
                for name, data in zip(names[first:], self._of_all_ranks(png), strict=False):
                    products.write_mask(name, data)

    def _rounds(
        self, work: str, names: Sequence[str]
    ) -> Generator[tuple[int, Tensor | None], None, None]:
        """In each round every rank has an image, but those beyond the end of the list.

        Yields:
            The index of rank 0's image, and this rank's image, uint8 (3, H, W), or None.
        """
        own, step = names[self.ranks.rank :: self.ranks.world_size], self.ranks.world_size
        workers = self.config.loader_workers(self.ranks.device.type)
        images = whole_images(self.dataset, own, workers=workers, cache=decoded_cache(self.config))
        with closing(images):
            for first in range(0, len(names), step):
                image = next(images, None)
                yield first, None if image is None else to_device(image, self.ranks.device)
                self.tick(work, min(first + step, len(names)), len(names))

    def _of_all_ranks(self, data: bytes) -> list[bytes]:
        """The bytes that each rank has, in rank order."""
        sizes = self.ranks.gather(torch.tensor(len(data), device=self.ranks.device)).tolist()
        padded = bytearray(data.ljust(max(sizes), b"\0"))
        mine = torch.frombuffer(padded, dtype=torch.uint8)
        rows = self.ranks.gather(mine.to(self.ranks.device)).cpu().numpy()
        return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]
