"""Backdoors: ten attacks, the repair of what they did, and its detection (lesson 03; lesson 02 uses the first few attacks).

    attacks.py    BadNets … ParameterControlled: stamp, poison, implant; attack_success_rate
    repair.py     fine_tuning, fine_pruning, attention_distillation, pivotal_tuning; lowest_asr
    detection.py  neural_cleanse, calibrated_trigger_inversion; roc_auc
"""
from mlsec_lab.data_to_model.backdoors.attacks import (
    ATTACKS, AdaptiveBlend, AdaptivePatch, AdvCleanLabel, BadNets, Backdoor, Blended, LatentBackdoor, ParameterControlled, Poisoned, Refool,
    TriggerScattered, WaNet, attack_success_rate, blend_patch, checkerboard)
from mlsec_lab.data_to_model.backdoors.detection import Suspicion, calibrated_trigger_inversion, invert_triggers, neural_cleanse, roc_auc
from mlsec_lab.data_to_model.backdoors.repair import (
    REPAIRS, Checkpoint, attention_distillation, check_trusted, fine_pruning, fine_tuning, half_mixed, lowest_asr, pivotal_tuning,
    repair_course, tune, turned_features)

__all__ = [
    "ATTACKS", "AdaptiveBlend", "AdaptivePatch", "AdvCleanLabel", "BadNets", "Backdoor", "Blended", "Checkpoint", "LatentBackdoor",
    "ParameterControlled", "Poisoned", "REPAIRS", "Refool", "Suspicion", "TriggerScattered", "WaNet", "attack_success_rate",
    "attention_distillation", "blend_patch", "calibrated_trigger_inversion", "check_trusted", "checkerboard", "fine_pruning", "fine_tuning",
    "half_mixed", "invert_triggers", "lowest_asr", "neural_cleanse", "pivotal_tuning", "repair_course", "roc_auc", "tune", "turned_features"]
