"""The tail of a causal model: from true hidden states it gives the model's own logits, for every family and layer."""

import pytest
import torch
from teachers import FAMILIES, IDS, teacher

from monge.lm.hidden import hidden_at
from monge.lm.tail import Tail


@pytest.mark.parametrize("layer", [1, 6])
@pytest.mark.parametrize("family", FAMILIES)
def test_true_states_give_the_logits_of_the_model(family: str, layer: int):
    model = teacher(family)
    mask = torch.tensor([[True] * 12, [True] * 4 + [False] * 8])
    with torch.no_grad():
        (states,) = hidden_at(model, IDS, [layer], mask=mask)
        tail = Tail(model, layer)
        logits = model(input_ids=IDS, attention_mask=mask.long()).logits
        torch.testing.assert_close(tail(states, mask)[mask], logits[mask], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(tail(states[:1]), logits[:1], atol=1e-4, rtol=1e-4)
    assert model.config.num_hidden_layers == 6  # the model itself is unchanged


def test_a_layer_that_the_model_lacks_is_an_error():
    for layer in (0, 7):
        with pytest.raises(ValueError, match=f"layer {layer}: the model has 6 blocks; give 1 to 6"):
            Tail(teacher("llama"), layer)
