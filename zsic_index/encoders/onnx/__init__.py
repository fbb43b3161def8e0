"""Vision towers as ONNX files, for ONNX Runtime.

``files`` finds a tower's files and says what was measured of them, ``tower`` runs them without
importing torch, ``export`` makes them from a loaded encoder, ``fidelity`` measures how far their
embeddings are from torch's, ``int8`` rounds their weights to eight bits. Importing this package
imports none of onnx, onnxruntime and torch.
"""
