package fake

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/bottle-run/bottle/runtime"
)

// LoadImage implements [runtime.Images].
func (e *Engine) LoadImage(ctx context.Context, archive io.Reader) ([]runtime.Image, error) {
	const op = "load image"
	if err := e.enter(ctx, "LoadImage", op, ""); err != nil {
		return nil, err
	}
	files, err := unpack(ctx, archive)
	if err != nil {
		return nil, fail(op, "", err)
	}
	var loads []load
	switch {
	case files["manifest.json"] != nil:
		loads, err = dockerArchive(files)
	case files["index.json"] != nil:
		loads, err = ociArchive(files)
	default:
		err = invalid("the archive holds neither manifest.json nor index.json")
	}
	if err != nil {
		return nil, fail(op, "", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var images []runtime.Image
	for _, l := range loads {
		images = append(images, e.addImage(l.tags, l.config, l.labels, l.files).copy())
	}
	return images, nil
}

// load is an image of an archive.
type load struct {
	tags   []string
	config runtime.ImageConfig
	labels map[string]string
	files  *tree
}

// unpack reads an archive, compressed or not.
func unpack(ctx context.Context, r io.Reader) (map[string][]byte, error) {
	b := bufio.NewReader(r)
	r = b
	if magic, _ := b.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, invalid("the archive cannot be decompressed: %v", err)
		}
		r = z
	}
	files := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, invalid("the archive cannot be read: %v", err)
		}
		if files[path.Clean(h.Name)], err = io.ReadAll(tr); err != nil {
			return nil, invalid("the archive cannot be read: %v", err)
		}
	}
}

func dockerArchive(files map[string][]byte) ([]load, error) {
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		return nil, invalid("manifest.json: %v", err)
	}
	var loads []load
	for _, m := range manifest {
		l, err := assemble(files, m.Config, m.Layers)
		if err != nil {
			return nil, err
		}
		l.tags = m.RepoTags
		loads = append(loads, l)
	}
	if len(loads) == 0 {
		return nil, invalid("manifest.json names no image")
	}
	return loads, nil
}

// descriptor is the part of an OCI descriptor that is used here.
type descriptor struct {
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

func (d descriptor) blob() string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }

func ociArchive(files map[string][]byte) ([]load, error) {
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		return nil, invalid("index.json: %v", err)
	}
	var loads []load
	for _, d := range index.Manifests {
		var manifest struct {
			Config descriptor   `json:"config"`
			Layers []descriptor `json:"layers"`
		}
		if err := json.Unmarshal(files[d.blob()], &manifest); err != nil {
			return nil, invalid("manifest %s: %v", d.Digest, err)
		}
		var layers []string
		for _, layer := range manifest.Layers {
			layers = append(layers, layer.blob())
		}
		l, err := assemble(files, manifest.Config.blob(), layers)
		if err != nil {
			return nil, err
		}
		for _, key := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
			if name := d.Annotations[key]; name != "" {
				l.tags = []string{name}
				break
			}
		}
		loads = append(loads, l)
	}
	if len(loads) == 0 {
		return nil, invalid("index.json names no image")
	}
	return loads, nil
}

// assemble reads a configuration and unpacks the layers.
func assemble(files map[string][]byte, config string, layers []string) (load, error) {
	var c struct {
		Architecture string `json:"architecture"`
		Config       struct {
			Entrypoint, Cmd, Env         []string
			User, WorkingDir, StopSignal string
			Labels                       map[string]string
		} `json:"config"`
	}
	if err := json.Unmarshal(files[path.Clean(config)], &c); err != nil {
		return load{}, invalid("image configuration %s: %v", config, err)
	}
	l := load{
		labels: c.Config.Labels, files: newTree(),
		config: runtime.ImageConfig{
			Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Env: c.Config.Env, User: c.Config.User,
			WorkDir: c.Config.WorkingDir, StopSignal: c.Config.StopSignal, Architecture: c.Architecture,
		},
	}
	for _, layer := range layers {
		content, ok := files[path.Clean(layer)]
		if !ok {
			return load{}, invalid("layer %s is missing", layer)
		}
		if err := l.files.apply(content); err != nil {
			return load{}, err
		}
	}
	return l, nil
}

// apply unpacks a layer over the tree.
func (t *tree) apply(layer []byte) error {
	var r io.Reader = bytes.NewReader(layer)
	if bytes.HasPrefix(layer, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(r)
		if err != nil {
			return invalid("a layer cannot be decompressed: %v", err)
		}
		r = z
	}
	entries, err := readArchive(context.Background(), r)
	if err != nil {
		return err
	}
	for _, h := range entries {
		name := path.Clean("/" + h.Name)
		dir, base := path.Split(name)
		if deleted, ok := strings.CutPrefix(base, ".wh."); ok {
			t.remove(path.Join(dir, deleted))
			continue
		}
		node := &Node{Mode: h.FileInfo().Mode(), UID: h.Uid, GID: h.Gid, ModTime: h.ModTime, Content: h.content}
		switch h.Typeflag {
		case tar.TypeDir:
			node.children = map[string]*Node{}
		case tar.TypeSymlink:
			node.Link = h.Linkname
		case tar.TypeLink:
			if node, _, err = t.lookup("/"+h.Linkname, false); err != nil {
				return invalid("layer entry %q: %v", h.Name, err)
			}
		case tar.TypeReg:
		default:
			continue
		}
		if err := t.put(name, node); err != nil {
			return invalid("layer entry %q: %v", h.Name, err)
		}
	}
	return nil
}
