"""PaliGemma 2 on a CPU through OpenVINO."""

from cxrreport.inference.openvino.model import load_openvino_model
