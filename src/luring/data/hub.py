"""A data set on the hub as a source."""

import os
import re
from pathlib import Path

from luring.data import cache, library, pictures
from luring.data.built_in import BUILT_IN
from luring.data.decoded import Decoded
from luring.data.folders import file_digest
from luring.data.pictures import Taken
from luring.errors import InputError

KNOWN = {
    "cifar10": ("uoft-cs/cifar10", None, "img"),
    "fashion_mnist": ("zalando-datasets/fashion_mnist", None, "image"),
    "mnist": ("ylecun/mnist", None, "image"),
    "svhn": ("ufldl-stanford/svhn", "cropped_digits", "image"),
}
"""Names looked for under `LURING_DATA`, then on the hub: id, configuration, column of images there."""


def load(name: str, image: str, label: str, taken: Taken, *, kept: Path, progress: bool) -> Decoded:
    """What the hub, or an earlier download, has under a name, decoded, or as it lies in the cache under `kept`.

    Raises:
        InputError: there is no such data set, or something in it cannot be used.
    """
    known = KNOWN.get(name)
    hub_id, config, column = known or (name, None, image)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id):
        raise _unknown(name, "not a hub id (owner/name)")
    if known and image == "image":
        image = column
    with library.quiet() as datasets:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        offline = datasets.config.HF_HUB_OFFLINE
        unreachable = None
        try:
            # One question, not repeated: `datasets` alone tries for 23 seconds before it says that there is no hub.
            HfApi().dataset_info(hub_id, timeout=5)
        except RepositoryNotFoundError as error:
            raise _unknown(name, f"the hub has no public {hub_id}") from error
        except Exception as error:  # each version of the client has its own
            unreachable = library.reason(error)
        try:
            # Without a hub, what was downloaded before will do.
            datasets.config.HF_HUB_OFFLINE = offline or unreachable is not None
            found = datasets.load_dataset(hub_id, config)
        except Exception as error:
            if unreachable is not None:
                raise _unknown(name, f"the hub could not be reached for {hub_id} ({unreachable})") from error
            raise InputError(
                f"{hub_id} could not be loaded from the hub ({library.reason(error)}); "
                "save what you need of it as a folder and give that."
            ) from error
        finally:
            datasets.config.HF_HUB_OFFLINE = offline
        parts = library.parts(found, hub_id)
        files = [(part, Path(file["filename"])) for part, rows in parts.items() for file in rows.cache_files]
        contents = repr([(part, file_digest(file).hex()) for part, file in files])
        path = cache.file(kept, contents, image, label, taken)
        if (ready := cache.read(path)) is not None:
            return ready
        source = pictures.decode(
            parts, image=image, label=label, where=hub_id, progress=progress, taken=taken, folder=kept
        )
    return cache.stored(path, source)


def _unknown(name: str, hub: str) -> InputError:
    root = os.environ.get("LURING_DATA")
    return InputError(
        f"unknown data set {name!r}: it is not built in ({', '.join(BUILT_IN)}), no folder here, none under "
        f"LURING_DATA ({root or 'which is not set'}), and {hub}; check the name (there are "
        f"{', '.join(sorted((*BUILT_IN, *KNOWN)))}), or give the path of a folder of images."
    )
