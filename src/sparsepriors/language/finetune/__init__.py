"""Fine-tuning language models: few trained numbers (DSEE, BitFit), preferences and rewards, a loop for small ones."""

from sparsepriors.language.finetune.adapter import DSEELinear
from sparsepriors.language.finetune.bitfit import bitfit
from sparsepriors.language.finetune.dsee import DSEE
from sparsepriors.language.finetune.flops import Flops, transformer_flops
from sparsepriors.language.finetune.interchange import read_peft, write_peft
from sparsepriors.language.finetune.methods import DPO, GRPO, RFT, SFT, Method
from sparsepriors.language.finetune.sampling import Answers, sample_answers, token_log_probs
from sparsepriors.language.finetune.support import find_support
from sparsepriors.language.finetune.tasks import Addition, gsm8k_answer, gsm8k_reward
from sparsepriors.language.finetune.trainers import finetune, finetune_subnetwork, snapshot

__all__ = [
    "DPO",
    "DSEE",
    "GRPO",
    "RFT",
    "SFT",
    "Addition",
    "Answers",
    "DSEELinear",
    "Flops",
    "Method",
    "bitfit",
    "find_support",
    "finetune",
    "finetune_subnetwork",
    "gsm8k_answer",
    "gsm8k_reward",
    "read_peft",
    "sample_answers",
    "snapshot",
    "token_log_probs",
    "transformer_flops",
    "write_peft",
]
