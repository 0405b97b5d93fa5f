"""Checkpoints, attention, prompt layout and adapters of PaliGemma 2 (arXiv 2412.03555)."""

import logging

# peft imports bitsandbytes if it is installed, which then warns of a missing CPU kernel that is not used here.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
