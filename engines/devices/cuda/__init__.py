"""NVIDIA GPUs, by ONNX Runtime's CUDA provider or by TensorRT."""
