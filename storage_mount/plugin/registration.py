"""How kubelet finds the plugin: a socket in its folder of registrations, where it asks who is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import grpc

from storage_mount.plugin.serving import service
from storage_mount.plugin.wire import registration_pb2 as pb

log = logging.getLogger(__name__)

CSI_VERSION = "1.0.0"


class Registration:
    """Tells kubelet where the plugin listens; `refused` is called when kubelet does not take it."""

    def __init__(self, driver: str, endpoint: Path, refused: Callable[[], None]) -> None:
        self._driver, self._endpoint, self._refused = driver, endpoint, refused

    def handler(self) -> grpc.GenericRpcHandler:
        return service(
            "pluginregistration.Registration",
            {
                "GetInfo": (pb.InfoRequest, self.info),
                "NotifyRegistrationStatus": (pb.RegistrationStatus, self.status),
            },
        )

    def info(self, request: pb.InfoRequest, context: grpc.ServicerContext) -> pb.PluginInfo:
        return pb.PluginInfo(
            type="CSIPlugin",
            name=self._driver,
            endpoint=str(self._endpoint),
            supported_versions=[CSI_VERSION],
        )

    def status(
        self, request: pb.RegistrationStatus, context: grpc.ServicerContext
    ) -> pb.RegistrationStatusResponse:
        if request.plugin_registered:
            log.info("kubelet has registered the driver %s", self._driver)
        else:
            log.error("kubelet has refused the driver %s: %s", self._driver, request.error)
            self._refused()
        return pb.RegistrationStatusResponse()
