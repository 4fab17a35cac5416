// Command fakedp is a device plugin whose devices are only names: a container that asks for one gets NVIDIA_VISIBLE_DEVICES.
//
//	fakedp -resource nvidia.com/gpu -count 2
//
// It registers again whenever kubelet starts anew.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

type devices struct {
	plugin.UnimplementedDevicePluginServer
	all []*plugin.Device
}

func (d *devices) GetDevicePluginOptions(context.Context, *plugin.Empty) (*plugin.DevicePluginOptions, error) {
	return &plugin.DevicePluginOptions{}, nil
}

func (d *devices) ListAndWatch(_ *plugin.Empty, stream plugin.DevicePlugin_ListAndWatchServer) error {
	if err := stream.Send(&plugin.ListAndWatchResponse{Devices: d.all}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (d *devices) Allocate(_ context.Context, request *plugin.AllocateRequest) (*plugin.AllocateResponse, error) {
	response := &plugin.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		response.ContainerResponses = append(response.ContainerResponses, &plugin.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")}})
	}
	return response, nil
}

// serve offers the devices until kubelet has removed our socket, as it does when it starts.
func serve(folder, resource string, all []*plugin.Device) error {
	name := "fake-" + strings.ReplaceAll(resource, "/", "-") + ".sock"
	socket := filepath.Join(folder, name)
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	plugin.RegisterDevicePluginServer(server, &devices{all: all})
	go server.Serve(listener)
	defer server.Stop()
	if err := register(folder, name, resource); err != nil {
		return err
	}
	log.Printf("registered %d of %s", len(all), resource)
	for {
		if _, err := os.Stat(socket); err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func register(folder, name, resource string) error {
	connection, err := grpc.NewClient(
		"unix://"+filepath.Join(folder, "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = plugin.NewRegistrationClient(connection).Register(
		ctx, &plugin.RegisterRequest{Version: plugin.Version, Endpoint: name, ResourceName: resource})
	return err
}

func main() {
	folder := flag.String("folder", plugin.DevicePluginPath, "where kubelet looks for device plugins")
	resource := flag.String("resource", "nvidia.com/gpu", "the resource's name")
	count := flag.Int("count", 2, "how many devices there are")
	flag.Parse()
	all := make([]*plugin.Device, *count)
	for i := range all {
		all[i] = &plugin.Device{ID: fmt.Sprintf("fake-%d", i), Health: plugin.Healthy}
	}
	for {
		log.Print(serve(*folder, *resource, all))
		time.Sleep(200 * time.Millisecond)
	}
}
