"""The Container Storage Interface, as far as kubelet uses it for inline volumes: Identity and Node."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from storage_mount.plugin.serving import service
from storage_mount.plugin.volumes import Refused, Volumes
from storage_mount.plugin.wire import csi_node_pb2 as pb


class Identity:
    """Who the plugin is."""

    def __init__(self, driver: str) -> None:
        self._driver = driver

    def handler(self) -> grpc.GenericRpcHandler:
        return service(
            "csi.v1.Identity",
            {
                "GetPluginInfo": (pb.GetPluginInfoRequest, self.info),
                "GetPluginCapabilities": (
                    pb.GetPluginCapabilitiesRequest,
                    lambda request, context: pb.GetPluginCapabilitiesResponse(),
                ),
                "Probe": (pb.ProbeRequest, lambda request, context: pb.ProbeResponse()),
            },
        )

    def info(
        self, request: pb.GetPluginInfoRequest, context: grpc.ServicerContext
    ) -> pb.GetPluginInfoResponse:
        return pb.GetPluginInfoResponse(name=self._driver)


class Node:
    """What kubelet asks for: a volume made, a volume taken away. Both may be asked for again and again."""

    def __init__(self, node: str, volumes: Volumes, published: Callable[[], None]) -> None:
        self._node, self._volumes, self._published = node, volumes, published

    def handler(self) -> grpc.GenericRpcHandler:
        return service(
            "csi.v1.Node",
            {
                "NodePublishVolume": (pb.NodePublishVolumeRequest, self.publish),
                "NodeUnpublishVolume": (pb.NodeUnpublishVolumeRequest, self.unpublish),
                "NodeGetCapabilities": (
                    pb.NodeGetCapabilitiesRequest,
                    lambda request, context: pb.NodeGetCapabilitiesResponse(),
                ),
                "NodeGetInfo": (
                    pb.NodeGetInfoRequest,
                    lambda request, context: pb.NodeGetInfoResponse(node_id=self._node),
                ),
            },
        )

    def publish(
        self, request: pb.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> pb.NodePublishVolumeResponse:
        try:
            self._volumes.publish(request.target_path, request.volume_context)
        except Refused as refused:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(refused))
        except OSError as error:
            # Other codes say that nothing was made, and then nobody ever takes away what was.
            context.abort(grpc.StatusCode.UNAVAILABLE, f"The volume could not be made: {error}")
        self._published()
        return pb.NodePublishVolumeResponse()

    def unpublish(
        self, request: pb.NodeUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> pb.NodeUnpublishVolumeResponse:
        try:
            self._volumes.unpublish(request.target_path)
        except Refused as refused:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(refused))
        except OSError as error:
            context.abort(grpc.StatusCode.INTERNAL, f"The volume could not be taken away: {error}")
        return pb.NodeUnpublishVolumeResponse()
