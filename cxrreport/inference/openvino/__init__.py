"""PaliGemma 2 on a CPU through OpenVINO."""
