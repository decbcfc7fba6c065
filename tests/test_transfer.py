import base64

import pytest
import torch
from torch import nn

from luring import answers, rows, transfer
from luring.attacks import preset
from luring.errors import InputError
from luring.transfer import Clean, Transferred, choose, craft, l0_quartiles, tune

torch.set_num_threads(1)


class Table(nn.Module):
    """Answers by the image's first value: image i has the value i / 100."""

    def __init__(self, answers, classes=4):
        super().__init__()
        self.answers, self.classes = torch.tensor(answers), classes

    def forward(self, x):
        index = (x[:, 0, 0, 0] * 100).round().long()
        return nn.functional.one_hot(self.answers[index], self.classes).float()


def numbered(n):
    return (torch.arange(n) / 100.0).view(n, 1, 1, 1).expand(n, 1, 2, 2).clone()


TRUTH = torch.arange(20) % 4


def test_only_images_that_all_classify_right_are_chosen():
    one = [int(t) if i % 2 == 0 else (int(t) + 1) % 4 for i, t in enumerate(TRUTH)]
    two = [int(t) if i % 3 == 0 else (int(t) + 1) % 4 for i, t in enumerate(TRUTH)]
    clean = choose([Table(one), Table(two)], numbered(20), TRUTH, n=1000)
    assert sorted(clean.index.tolist()) == [0, 6, 12, 18], "all there are, where there are fewer"
    assert torch.equal(clean.images, numbered(20)[clean.index])
    assert torch.equal(clean.labels, TRUTH[clean.index])


def test_the_choice_is_of_the_seed():
    model, images = Table(TRUTH.tolist()), numbered(20)
    first, again, other = (choose([model], images, TRUTH, n=8, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.index, again.index)
    assert first.digest == again.digest
    assert not torch.equal(first.index, other.index)
    assert first.digest != other.digest
    assert len(set(first.index.tolist())) == 8
    more = choose([model], images, TRUTH, n=12, seed=3)
    assert torch.equal(more.index[:8], first.index), "a larger choice holds the smaller"
    assert torch.equal(more.first(8).labels, first.labels)
    assert more.first(8).digest == first.digest


def test_who_remembers_asks_each_model_once():
    models, images, asked = [Table(TRUTH.tolist()), Table(TRUTH.tolist())], numbered(20), []
    for model in models:
        model.register_forward_hook(lambda module, *_: asked.append(module))
    ask = answers.remembering()
    first, second = (choose(models, images, TRUTH, n=8, seed=seed, ask=ask) for seed in (0, 1))
    assert asked == models
    for clean, seed in ((first, 0), (second, 1)):
        assert torch.equal(clean.index, choose(models, images, TRUTH, n=8, seed=seed).index)


def test_bytes_are_prepared():
    images = torch.randint(0, 256, (6, 1, 2, 2), dtype=torch.uint8)
    clean = choose([lambda x: torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)], images, torch.zeros(6).long(), n=3)
    assert torch.equal(clean.images, images[clean.index].float() / 255)


def test_none_right_is_refused():
    wrong = ((TRUTH + 1) % 4).tolist()
    with pytest.raises(InputError, match="by all models"):
        choose([Table(TRUTH.tolist()), Table(wrong)], numbered(20), TRUTH)


@pytest.fixture
def some():
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(11, 1, 4, 4, generator=draw)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    return model, Clean(images, model(images).argmax(1), torch.arange(11))


@pytest.mark.parametrize("name", ["mim", "pgd", "miml2", "fgsm"])
def test_what_is_crafted_lies_in_the_ball_of_eps(some, name):
    model, clean = some
    settings = {} if name == "fgsm" else {"steps": 4, "step": 0.1}
    settings |= {"radius": 3.0} if name == "miml2" else {}
    made = craft(preset(name, eps=0.15, **settings), model, clean, batch=4)
    assert made.shape == clean.images.shape
    assert (made - clean.images).abs().max() <= 0.15 + 1e-6
    assert made.min() >= 0
    assert made.max() <= 1
    assert not torch.equal(made, clean.images)


def test_what_leaves_the_ball_is_projected(some, monkeypatch):
    model, clean = some
    monkeypatch.setattr("luring.attacks.craft", lambda _attack, _model, x, _y, **_: x + 5)
    made = craft(preset("fgsm", eps=0.1), model, clean)
    assert torch.allclose(made, (clean.images + 0.1).clamp(max=1))


def test_crafting_repeats_and_no_two_batches_draw_the_same(some):
    model, clean = some
    attack = preset("pgd", eps=0.1, steps=1, step=1e-9)
    assert torch.equal(craft(attack, model, clean, batch=4), craft(attack, model, clean, batch=4))
    same = Clean(clean.images[:1].expand(8, 1, 4, 4).clone(), clean.labels[:1].repeat(8), torch.arange(8))
    made = craft(attack, model, same, batch=4)
    assert not torch.allclose(made[:4], made[4:], atol=1e-4)


def test_tuning_takes_the_lowest_ac_m_ties_by_dac(monkeypatch, some):
    model, clean = some
    truth = torch.zeros(11, dtype=torch.int64)
    # settings -> images (of 11) on which M is wrong, and of these the ones on which M∘P agrees with M
    outcomes = {(0.1, 3): (2, 2), (0.1, 5): (6, 1), (0.2, 3): (6, 5), (0.2, 5): (6, 5)}
    asked = []

    def crafted(attack, _model, clean, **_):
        asked.append((dict(attack.settings)["step"], dict(attack.settings)["steps"]))
        return clean.images

    def shown(_target, _decoy, _examples, _truth):
        wrong, noticed_not = outcomes[asked[-1]]
        m, mop = truth.clone(), torch.full_like(truth, 2)
        m[:wrong] = 1
        mop[:noticed_not] = 1
        return Transferred(m, mop, truth)

    monkeypatch.setattr(transfer, "craft", crafted)
    monkeypatch.setattr(transfer, "transfer", shown)
    attack = preset("mim", eps=0.3, decay=0.7)
    best, tried = tune(attack, {"step": (0.1, 0.2), "steps": (3, 5)}, model, model, clean)
    assert asked == list(outcomes)
    assert best == attack.but(step=0.2, steps=3), "lowest AC_M, then lowest DAC, then the first"
    assert [trial["settings"] for trial in tried] == [{"step": a, "steps": b} for a, b in outcomes]
    assert tried[2] == {
        "settings": {"step": 0.2, "steps": 3},
        "n": 11,
        "ac_mop": 0.0,
        "ac_m": pytest.approx(5 / 11),
        "dac": pytest.approx(6 / 11),
    }


def test_nothing_to_tune(some):
    model, clean = some
    attack = preset("mim", eps=0.1)
    assert tune(attack, {}, model, model, clean) == (attack, [])


def test_transfer_asks_both():
    shown = transfer.transfer(Table([0, 1, 2]), Table([0, 2, 2]), numbered(3), torch.tensor([0, 1, 1]))
    assert shown.m.tolist() == [0, 1, 2]
    assert shown.mop.tolist() == [0, 2, 2]
    found = shown.measures()
    assert found == {"ac_mop": pytest.approx(1 / 3), "ac_m": pytest.approx(2 / 3), "dac": pytest.approx(2 / 3)} | {
        "dr": 0.5,
        "adq": 0.5,
    }


@pytest.mark.parametrize(("classes", "width"), [(10, 1), (256, 1), (257, 2), (60_000, 2)])
def test_labels_come_back_from_their_rows(classes, width):
    highest = torch.tensor([classes - 1, 0, 3])
    vectors = Transferred(m=highest, mop=torch.tensor([1, 2, 3]), truth=torch.tensor([0, 0, 1]))
    row = {"n": 3, "labels": vectors.encoded()}
    assert len(base64.b64decode(row["labels"]["m"])) == 3 * width
    assert [found.tolist() for found in rows.labels(row)] == [[0, 0, 1], highest.tolist(), [1, 2, 3]]


def test_quartiles_of_the_values_changed():
    clean = torch.zeros(5, 1, 3, 3)
    examples = clean.clone()
    for image, count in enumerate((0, 9, 4, 2, 6)):
        examples[image].view(-1)[:count] = 0.3
    assert l0_quartiles(clean, examples) == [0, 2, 4, 6, 9]
