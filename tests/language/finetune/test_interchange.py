"""Adapters of the peft package beside ours."""

import json

import peft
import pytest
import torch

from language.finetune.models import IDS, TARGETS, build, logits
from sparsepriors import _files
from sparsepriors.language import DSEE, read_peft, write_peft

FAMILIES = list(TARGETS)
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def lora(family, seed=0):
    """Ours without entries, its updates not zero."""
    tuner = DSEE(build(family), 3, 0, 6.0, TARGETS[family], generator=torch.Generator().manual_seed(seed))
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in tuner.trainable_parameters().values():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
    return tuner


def theirs(family):
    head = {"modules_to_save": ["classifier"]} if family == "bert" else {}
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=list(TARGETS[family]), lora_dropout=0.0,
                             fan_in_fan_out=family == "gpt2", **head)
    return peft.get_peft_model(build(family), config).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_without_entries_outputs_and_gradients_are_those_of_peft(family):
    ours, model = lora(family), theirs(family)
    state = {}
    for name, layer in ours.layers.items():
        state[f"base_model.model.{name}.lora_A.default.weight"] = layer.V.detach()
        state[f"base_model.model.{name}.lora_B.default.weight"] = layer.U.detach()
    for name, module in ours.trained.items():
        state |= {f"base_model.model.{name}.modules_to_save.default.{k}": v for k, v in module.state_dict().items()}
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    torch.testing.assert_close(logits(ours.model), logits(model), rtol=1e-5, atol=1e-6)
    for m in (ours.model, model):
        m(IDS).logits.square().mean().backward()
    grads = {name.replace(".default", ""): p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, layer in ours.layers.items():
        for part, key in ((layer.V, "lora_A"), (layer.U, "lora_B")):
            torch.testing.assert_close(part.grad, grads.pop(f"base_model.model.{name}.{key}.weight"), rtol=1e-4,
                                       atol=1e-7)
    assert len(grads) == sum(len(list(m.parameters())) for m in ours.trained.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_reads_what_we_write_and_we_read_what_peft_writes(family, tmp_path):
    ours = lora(family)
    folder = write_peft(ours, tmp_path / "ours")
    model = peft.PeftModel.from_pretrained(build(family), str(folder)).eval()
    torch.testing.assert_close(logits(model), logits(ours.model), rtol=1e-5, atol=1e-6)
    model.save_pretrained(str(tmp_path / "theirs"))
    again = read_peft(tmp_path / "theirs", build(family))
    torch.testing.assert_close(logits(again.model), logits(ours.model), rtol=1e-5, atol=1e-6)
    assert set(again.trained) == set(ours.trained)
    assert set(again.trainable_parameters()) == set(ours.trainable_parameters())


@pytest.mark.public_door
def test_what_lora_cannot_say_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no place for the entries"):
        write_peft(DSEE(build("bert"), 2, 3, support="random"), tmp_path)
    pruned = lora("bert")
    pruned.prune(0.5)
    with pytest.raises(ValueError, match="cannot say that the model was pruned"):
        write_peft(pruned, tmp_path)
    cut = lora("bert")
    cut.prune_heads(1)
    with pytest.raises(ValueError, match="cannot say that the model was pruned"):
        write_peft(cut, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.public_door
def test_what_we_cannot_read_is_refused(tmp_path):
    folder = write_peft(lora("bert"), tmp_path / "a")
    config = json.loads((folder / "adapter_config.json").read_text())
    for changed, message in (({"peft_type": "IA3"}, "holds no LoRA adapter but .IA3"),
                             ({"use_dora": True}, "use_dora = True"), ({"use_rslora": True}, "use_rslora = True"),
                             ({"rank_pattern": {"query": 4}}, "rank_pattern"), ({"bias": "all"}, "bias = 'all'"),
                             ({"r": 2}, r"has shape \(3, 24\), expected \(2, 24\)")):
        _files.write_json(folder / "adapter_config.json", {**config, **changed})
        with pytest.raises(ValueError, match=message):
            read_peft(folder, build("bert"))
    _files.write_json(folder / "adapter_config.json", config)
    with pytest.raises(ValueError, match="which the model does not have"):
        read_peft(folder, build("llama"))
    _files.write_tensors(folder / "adapter_model.safetensors", {"base_model.model.classifier.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match="holds no lora_A weights"):
        read_peft(folder, build("bert"))
