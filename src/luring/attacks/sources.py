"""Several models attacked as one."""

from torch import Tensor, nn

from luring.answers import check_logits
from luring.errors import InputError
from luring.types import Classifier


def ensemble(*models: Classifier) -> nn.Module:
    """A model whose logits are the mean of several models' (Dong et al. 2018, §3.4): an example for it transfers better.

    Args:
        models: from images to logits, of the same classes.

    Raises:
        InputError: not a single model; when called: models with different numbers of classes.
    """
    if not models:
        raise InputError("the ensemble is empty: give at least one model.")
    return Ensemble(models)


class Ensemble(nn.Module):
    """Modules among the models are its children, so that an attack holds them still."""

    def __init__(self, models: tuple[Classifier, ...]) -> None:
        super().__init__()
        self.models = models
        self.children_ = nn.ModuleList(model for model in models if isinstance(model, nn.Module))

    def forward(self, images: Tensor) -> Tensor:
        """The mean of the models' logits."""
        found = [check_logits(model(images), len(images)) for model in self.models]
        classes = [logits.shape[1] for logits in found]
        if len(set(classes)) > 1:
            raise InputError(
                f"the models of the ensemble have {', '.join(map(str, classes))} classes: give models of the same classes."
            )
        total = found[0]
        for logits in found[1:]:
            total = total + logits
        return total / len(found)
