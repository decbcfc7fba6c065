"""The paper's targets and lures, and narrower ones of their shape (`luring.networks` has them by name).

Every network takes images in [0, 1], [batch, channels, height, width]. A target gives logits, a lure an image of the same shape.
"""

from torch import nn

from luring.errors import InputError
from luring.types import Shape

# Keras's batch normalisation, which the authors used.
KERAS_EPS, KERAS_MOMENTUM = 1e-3, 0.01


def mnist_target(shape: Shape = (1, 28, 28), classes: int = 10, *, dense: int = 1024) -> nn.Sequential:
    """The paper's target for MNIST (Madry et al. 2018): two 5×5 convolutions without bias, two dense layers; 3.3 M parameters."""
    channels, height, width = shape
    return _glorot(
        nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), dense),
            nn.ReLU(),
            nn.Linear(dense, classes),
        )
    )


def svhn_target(shape: Shape = (3, 32, 32), classes: int = 10) -> nn.Sequential:
    """The paper's target for SVHN, after VGG: six convolutions of 64, 128, 256 channels, three dense layers."""
    return _vgg_target(shape, classes, (64, 128, 256))


def cifar10_target(shape: Shape = (3, 32, 32), classes: int = 10) -> nn.Sequential:
    """The paper's target for CIFAR10: as for SVHN, with 128, 256, 512 channels."""
    return _vgg_target(shape, classes, (128, 256, 512))


def mnist_narrow_target(shape: Shape = (1, 28, 28), classes: int = 10) -> nn.Sequential:
    """The paper's target for MNIST with 256 values in the dense layer where it has 1024; 0.9 M parameters."""
    return mnist_target(shape, classes, dense=256)


def svhn_narrow_target(shape: Shape = (3, 32, 32), classes: int = 10) -> nn.Sequential:
    """The paper's target for SVHN at half its width, a quarter in the dense layers: 0.6 M parameters."""
    return _vgg_target(shape, classes, (32, 64, 128), dense=256)


def cifar10_narrow_target(shape: Shape = (3, 32, 32), classes: int = 10) -> nn.Sequential:
    """The paper's target for CIFAR10 at three eighths of its width, a quarter in the dense layers: 1.2 M parameters."""
    return _vgg_target(shape, classes, (48, 96, 192), dense=256)


def mnist_lure(shape: Shape = (1, 28, 28)) -> nn.Sequential:
    """The paper's lure for MNIST: an autoencoder through 4×4×8; 4.4 k parameters."""
    if shape[1:] != (28, 28):
        raise InputError(
            f"the lure 'mnist' is for images of 28 by 28, not {shape[1]} by {shape[2]}: take the lure 'auto'."
        )
    channels = shape[0]
    return _glorot(
        nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(8, 16, 3),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, channels, 3, padding=1),
            nn.Sigmoid(),
        )
    )


def svhn_lure(shape: Shape = (3, 32, 32), *, dropout: float = 0.15) -> nn.Sequential:
    """The paper's lure for SVHN: 0.80 G multiply-adds. `dropout` is the paper's for the luring loss; others are fitted with 0."""
    return _deep_lure(shape, *_SVHN_LURE, dropout)


def cifar10_lure(shape: Shape = (3, 32, 32), *, dropout: float = 0.3) -> nn.Sequential:
    """The paper's lure for CIFAR10: 14.8 M parameters, 4.3 G multiply-adds, eight times its target."""
    return _deep_lure(shape, *_CIFAR10_LURE, dropout)


def svhn_narrow_lure(shape: Shape = (3, 32, 32)) -> nn.Sequential:
    """The paper's lure for SVHN at an eighth of its width and without dropout: 13 M multiply-adds."""
    return _deep_lure(shape, *_SVHN_LURE, 0.0, share=8)


def cifar10_narrow_lure(shape: Shape = (3, 32, 32)) -> nn.Sequential:
    """The paper's lure for CIFAR10 at an eighth of its width and without dropout: 67 M multiply-adds."""
    return _deep_lure(shape, *_CIFAR10_LURE, 0.0, share=8)


def _vgg_target(shape: Shape, classes: int, widths: tuple[int, int, int], *, dense: int = 1024) -> nn.Sequential:
    channels, height, width = shape
    layers: list[nn.Module] = []
    for block, out in enumerate(widths):
        # The first convolution takes no padding; the pooling comes before normalisation and ReLU.
        layers += [nn.Conv2d(channels, out, 3, padding=0 if block == 0 else 1, bias=False), _norm(out), nn.ReLU()]
        layers += [nn.Conv2d(out, out, 3, padding=1, bias=False), nn.MaxPool2d(2), _norm(out), nn.ReLU()]
        channels = out
    features = widths[-1] * ((height - 2) // 8) * ((width - 2) // 8)
    for index, inputs in enumerate((features, dense)):
        layers += [nn.Flatten()] if index == 0 else []
        layers += [
            nn.Dropout(0.25),
            nn.Linear(inputs, dense, bias=False),
            nn.BatchNorm1d(dense, KERAS_EPS, KERAS_MOMENTUM),
            nn.ReLU(),
        ]
    return _glorot(nn.Sequential(*layers, nn.Linear(dense, classes, bias=False)))


_SVHN_LURE = (
    ("128", "pool", "256", "pool", "512", "1024", "pool"),
    ("512", "512", "up", "256", "up", "128", "up", "64"),
)
_CIFAR10_LURE = ("128", "256", "pool", "512", "1024"), ("512", "512", "256", "up", "128", "64")


def _deep_lure(
    shape: Shape, encoder: tuple[str, ...], decoder: tuple[str, ...], dropout: float, *, share: int = 1
) -> nn.Sequential:
    fold = 2 ** encoder.count("pool")
    if shape[1] % fold or shape[2] % fold:
        raise InputError(
            f"this lure halves images {encoder.count('pool')} times: give sides that {fold} divides, not {shape[1]} by {shape[2]}."
        )
    channels = shape[0]
    layers: list[nn.Module] = []
    names = encoder + decoder
    for index, name in enumerate(names):
        if name == "pool":
            layers.append(nn.MaxPool2d(2))
        elif name == "up":
            layers.append(nn.Upsample(scale_factor=2))
        else:
            width = int(name) // share
            layers += [nn.Conv2d(channels, width, 3, padding=1), _norm(width), nn.ReLU()]
            channels = width
            if index in (0, len(names) - 1):
                layers.append(nn.Dropout(dropout))
    return _glorot(nn.Sequential(*layers, nn.Conv2d(channels, shape[0], 3, padding=1), _norm(shape[0]), nn.Sigmoid()))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, KERAS_EPS, KERAS_MOMENTUM)


def _glorot(network: nn.Sequential) -> nn.Sequential:
    """Keras's initial weights, which the authors used: Glorot's uniform, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
