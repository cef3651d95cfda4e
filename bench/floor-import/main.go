// Command floor-import puts the OCI archives given as arguments into containerd, the cheapest way
// that we know: one connection, the plain content, image and lease services, no unpacking, no
// client library. bench/floor.c execs it, since the floor itself has no gRPC client.
//
//	floor-import /run/containerd/containerd.sock /lib/kios/images/pause.tar ...
//
// An archive holds `index.json` with one manifest, named by its annotation
// `io.containerd.image.name`, and `blobs/sha256/*`.
package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	content "github.com/containerd/containerd/api/services/content/v1"
	images "github.com/containerd/containerd/api/services/images/v1"
	leases "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// chunk is how much of a blob one message carries; containerd's limit for a message is 16 MiB.
const chunk = 1 << 20

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

type index struct {
	Manifests []descriptor `json:"manifests"`
}

type manifest struct {
	Config descriptor   `json:"config"`
	Layers []descriptor `json:"layers"`
}

// archive is an OCI archive read into memory: index.json and the blobs by digest.
type archive struct {
	index index
	blobs map[string][]byte
}

func read(path string) (archive, error) {
	a := archive{blobs: map[string][]byte{}}
	file, err := os.Open(path)
	if err != nil {
		return a, err
	}
	defer file.Close()
	found := false
	for entries := tar.NewReader(file); ; {
		header, err := entries.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return a, fmt.Errorf("%s: %w", path, err)
		}
		data, err := io.ReadAll(entries)
		if err != nil {
			return a, fmt.Errorf("%s: %s: %w", path, header.Name, err)
		}
		if name, ok := strings.CutPrefix(header.Name, "blobs/sha256/"); ok && name != "" {
			a.blobs["sha256:"+name] = data
		} else if header.Name == "index.json" {
			if err := json.Unmarshal(data, &a.index); err != nil {
				return a, fmt.Errorf("%s: index.json: %w", path, err)
			}
			found = true
		}
	}
	if !found || len(a.index.Manifests) == 0 {
		return a, fmt.Errorf("%s: want an index.json with manifests", path)
	}
	return a, nil
}

type importer struct {
	content content.ContentClient
	images  images.ImagesClient
}

// write stores one blob. A blob that is already there is left as it is.
func (i importer) write(ctx context.Context, digest string, data []byte, labels map[string]string) error {
	stream, err := i.content.Write(ctx)
	if err != nil {
		return err
	}
	total := int64(len(data))
	for offset := 0; ; {
		end := min(offset+chunk, len(data))
		request := &content.WriteContentRequest{
			Action: content.WriteAction_WRITE, Ref: "floor-" + digest, Total: total,
			Expected: digest, Offset: int64(offset), Data: data[offset:end],
		}
		if end == len(data) {
			request.Action, request.Labels = content.WriteAction_COMMIT, labels
		}
		if err := stream.Send(request); err != nil && err != io.EOF {
			return fmt.Errorf("%s: %w", digest, err)
		}
		if _, err := stream.Recv(); status.Code(err) == codes.AlreadyExists {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", digest, err)
		}
		if offset = end; offset == len(data) {
			return stream.CloseSend()
		}
	}
}

// add stores an image's layers, configuration and manifest, then names it.
func (i importer) add(ctx context.Context, a archive, top descriptor) error {
	name := top.Annotations["io.containerd.image.name"]
	if name == "" {
		return fmt.Errorf("%s: no io.containerd.image.name", top.Digest)
	}
	var m manifest
	if err := json.Unmarshal(a.blobs[top.Digest], &m); err != nil {
		return fmt.Errorf("%s: manifest %s: %w", name, top.Digest, err)
	}
	refs := map[string]string{"containerd.io/gc.ref.content.config": m.Config.Digest}
	for n, layer := range m.Layers {
		refs[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", n)] = layer.Digest
		if err := i.write(ctx, layer.Digest, a.blobs[layer.Digest], nil); err != nil {
			return fmt.Errorf("%s: layer %w", name, err)
		}
	}
	if err := i.write(ctx, m.Config.Digest, a.blobs[m.Config.Digest], nil); err != nil {
		return fmt.Errorf("%s: config %w", name, err)
	}
	if err := i.write(ctx, top.Digest, a.blobs[top.Digest], refs); err != nil {
		return fmt.Errorf("%s: manifest %w", name, err)
	}
	_, err := i.images.Create(ctx, &images.CreateImageRequest{Image: &images.Image{
		Name:   name,
		Labels: map[string]string{"io.cri-containerd.image": "managed", "io.cri-containerd.pinned": "pinned"},
		Target: &types.Descriptor{MediaType: top.MediaType, Digest: top.Digest, Size: top.Size},
	}})
	if status.Code(err) == codes.AlreadyExists {
		return nil
	}
	return err
}

func run(socket string, paths []string) error {
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx := metadata.AppendToOutgoingContext(context.Background(), "containerd-namespace", "k8s.io")
	// Without a lease the collector that containerd runs at its start may take the blobs before the
	// image names them.
	manager := leases.NewLeasesClient(connection)
	lease, err := manager.Create(ctx, &leases.CreateRequest{ID: "floor-import"}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	leased := metadata.AppendToOutgoingContext(ctx, "containerd-lease", lease.GetLease().GetID())
	i := importer{content.NewContentClient(connection), images.NewImagesClient(connection)}
	for _, path := range paths {
		a, err := read(path)
		if err != nil {
			return err
		}
		for _, top := range a.index.Manifests {
			if err := i.add(leased, a, top); err != nil {
				return err
			}
		}
	}
	_, err = manager.Delete(ctx, &leases.DeleteRequest{ID: lease.GetLease().GetID()})
	return err
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: floor-import SOCKET ARCHIVE...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "floor-import:", err)
		os.Exit(1)
	}
}
