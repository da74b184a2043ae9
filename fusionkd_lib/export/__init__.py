"""A trained branch, or the fused network, leaves the project as one ONNX file with a model card."""
