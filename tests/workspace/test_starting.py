from __future__ import annotations

import pytest
import torch

from napari_drososeg.checkpoint import load_model
from napari_drososeg.classes import ClassTable, SegmentationClass
from napari_drososeg.workspace.starting import with_classes
from napari_drososeg.zoo import find_network, list_networks

ZOO = [card.name for card in list_networks()]


@pytest.mark.parametrize("name", ZOO)
def test_a_network_keeps_what_it_knows_for_other_classes(name: str) -> None:
    names = ("vesicle", "mitochondria", "nucleus", "cytoplasm")
    classes = ClassTable(tuple(SegmentationClass(v, n, "#000000") for v, n in enumerate(names, start=1)))
    spec, model = load_model(find_network(name))
    made = with_classes(spec, model, classes)
    random = torch.random.get_rng_state()
    again = with_classes(spec, model, classes).state_dict()
    assert torch.equal(random, torch.random.get_rng_state())
    before, after = model.state_dict(), made.state_dict()
    assert all(torch.equal(v, again[k]) for k, v in after.items())
    depend = [k for k in before if before[k].shape != after[k].shape]
    assert 1 <= len(depend) <= 9
    assert all(torch.equal(before[k], after[k]) for k in before if k not in depend)
    if name == "fcn8":  # its classes are mixed by its last layers
        return
    image = torch.randn((1, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        old, new = model.eval()(image), made(image)
    assert new.shape == (1, 4, 64, 64)
    torch.testing.assert_close(new[:, [3, 1]], old[:, [0, 2]], atol=1e-4, rtol=1e-4)
