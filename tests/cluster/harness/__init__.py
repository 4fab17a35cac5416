"""A real Kubernetes of the tests' own, on this machine, without anything installed system-wide.

One node in a network namespace and a mount namespace: etcd, API server, controllers, kubelet, containerd, kube-proxy, CoreDNS, two
pretended GPUs, and KWOK for nodes that are only objects. Everything it makes is named after its state folder, so that several live
side by side, and is gone after `down`.

    python -m cluster.harness up | token NAME | status | exec -- COMMAND | down      (in tests/)
"""
