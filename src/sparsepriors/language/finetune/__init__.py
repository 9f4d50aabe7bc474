"""Fine-tuning small language models: losses of preference tuning and reinforcement learning, and a loop for some."""

from sparsepriors.language.finetune.methods import DPO, GRPO, RFT, SFT, Method
from sparsepriors.language.finetune.sampling import Answers, sample_answers, token_log_probs
from sparsepriors.language.finetune.tasks import Addition, gsm8k_answer, gsm8k_reward
from sparsepriors.language.finetune.trainers import finetune, finetune_subnetwork, snapshot

__all__ = [
    "DPO",
    "GRPO",
    "RFT",
    "SFT",
    "Addition",
    "Answers",
    "Method",
    "finetune",
    "finetune_subnetwork",
    "gsm8k_answer",
    "gsm8k_reward",
    "sample_answers",
    "snapshot",
    "token_log_probs",
]
