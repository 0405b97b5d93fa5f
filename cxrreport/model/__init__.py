"""Checkpoints, attention, prompt layout and adapters of PaliGemma 2 (arXiv 2412.03555)."""

import logging

# Where bitsandbytes is installed peft imports it, and it warns at once of a kernel for CPUs that nothing here asks for.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
