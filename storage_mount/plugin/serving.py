"""gRPC on a unix socket, without generated services: a method is a function of its request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

THREADS = 8
Call = Callable[[Any, grpc.ServicerContext], Any]


def service(name: str, methods: Mapping[str, tuple[type[Any], Call]]) -> grpc.GenericRpcHandler:
    """Return a service of unary methods: name → (type of the request, function)."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        method: grpc.unary_unary_rpc_method_handler(
            call,
            request_deserializer=request.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        for method, (request, call) in methods.items()
    }
    return grpc.method_handlers_generic_handler(name, handlers)


def serve(socket: Path, *services: grpc.GenericRpcHandler) -> grpc.Server:
    """Serve on a socket that only its owner may use; what was left there by an earlier process is replaced."""
    socket.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(THREADS))
    server.add_generic_rpc_handlers(services)
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    socket.chmod(0o700)
    return server
