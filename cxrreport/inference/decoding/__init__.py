"""Text generation for images and prompts."""

from cxrreport.inference.decoding.engine import Engine
from cxrreport.inference.decoding.requests import Generated, Request, TextEngine
