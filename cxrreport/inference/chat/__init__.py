"""Reports by any image-text-to-text model that transformers loads, through its own processor and chat template."""

from cxrreport.inference.chat.engine import ChatEngine
from cxrreport.inference.chat.loading import load_chat_model
from cxrreport.inference.chat.template import ChatLayout, read_template
