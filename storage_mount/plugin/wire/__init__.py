"""The messages of CSI and of kubelet's plugin registration, generated from the proto files beside them (see generate.py)."""
