"""The catalogue: every model as data, and the builders that turn trained weights into ONNX files."""
