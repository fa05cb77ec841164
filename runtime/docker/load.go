package docker

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bottle-run/bottle/runtime"
)

// LoadImage reads an archive of `docker save`, or an OCI layout. Docker below 25
// does not know the latter: its stream gets the index that such a daemon looks
// for, which goes last, when all that it tells is known.
func (e *engine) LoadImage(ctx context.Context, archive io.Reader) ([]runtime.Image, error) {
	images, err := e.load(ctx, archive)
	return images, fail(ctx, "load image", "", err)
}

func (e *engine) load(ctx context.Context, archive io.Reader) ([]runtime.Image, error) {
	r, w := io.Pipe()
	rewritten := make(chan error, 1)
	go func() {
		err := indexArchive(w, archive, goArch(e.version.Arch))
		rewritten <- err
		w.CloseWithError(err)
	}()
	names, err := e.loadStream(ctx, r)
	_ = r.Close()
	// What is wrong with the archive explains the daemon's failure.
	if archiveErr := <-rewritten; archiveErr != nil && !errors.Is(archiveErr, io.ErrClosedPipe) && ctx.Err() == nil {
		return nil, archiveErr
	}
	if err != nil {
		return nil, err
	}
	var images []runtime.Image
	for _, name := range names {
		image, err := e.image(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("loaded image %s: %w", name, err)
		}
		if !slices.ContainsFunc(images, func(i runtime.Image) bool { return i.ID == image.ID }) {
			images = append(images, image)
		}
	}
	if len(images) == 0 {
		return nil, runtime.Errorf(errdefs.ErrInvalidArgument, "the archive holds no image")
	}
	return images, nil
}

// loadStream sends the archive and reads what the daemon says that it loaded.
func (e *engine) loadStream(ctx context.Context, archive io.Reader) ([]string, error) {
	res, err := e.cli.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return nil, err
	}
	defer res.Close() //nolint:errcheck // only read
	var names []string
	for dec := json.NewDecoder(res); ; {
		var m jsonstream.Message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return names, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the daemon's answer: %w", err)
		}
		if m.Error != nil {
			if containsAny(m.Error, "no space left") {
				return nil, runtime.Errorf(errdefs.ErrResourceExhausted, "%s", m.Error.Message)
			}
			return nil, runtime.Errorf(errdefs.ErrInvalidArgument, "the archive is refused: %s", m.Error.Message)
		}
		for line := range strings.SplitSeq(m.Stream, "\n") {
			for _, prefix := range []string{"Loaded image: ", "Loaded image ID: "} {
				if name, ok := strings.CutPrefix(line, prefix); ok {
					names = append(names, strings.TrimSpace(name))
				}
			}
		}
	}
}

const (
	// maxDocument bounds an entry that may be a JSON document of the layout.
	maxDocument = 4 << 20
	// maxDocuments bounds all of them.
	maxDocuments = 32 << 20
)

// indexArchive passes an archive on, uncompressed, and appends a manifest.json if
// it is an OCI layout without one. Anything but a tar stream is InvalidArgument.
func indexArchive(w io.Writer, r io.Reader, arch string) error {
	in := bufio.NewReaderSize(r, 64<<10)
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		zr, err := gzip.NewReader(in)
		if err != nil {
			return runtime.Errorf(errdefs.ErrInvalidArgument, "the archive is not valid gzip: %v", err)
		}
		in = bufio.NewReaderSize(zr, 64<<10)
	}
	l := layout{arch: arch, documents: map[string][]byte{}}
	tr, tw := tar.NewReader(in), tar.NewWriter(w)
	for first := true; ; first = false {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) && !first {
			break
		}
		if err != nil {
			return readError(err, first)
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		name := path.Clean(h.Name)
		l.dockerIndex = l.dockerIndex || name == "manifest.json"
		var from io.Reader = tr
		if h.Typeflag == tar.TypeReg && l.wants(name, h.Size) {
			document, err := io.ReadAll(tr)
			if err != nil {
				return readError(err, false)
			}
			l.documents[name] = document
			from = strings.NewReader(string(document))
		}
		if _, err := io.Copy(tw, from); err != nil {
			return readError(err, false)
		}
	}
	if index, err := l.index(); err != nil {
		return err
	} else if index != nil {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json", Mode: 0o644, Size: int64(len(index))}); err != nil {
			return err
		}
		if _, err := tw.Write(index); err != nil {
			return err
		}
	}
	return tw.Close()
}

// readError tells a bad archive from a reader or writer that failed.
func readError(err error, first bool) error {
	switch {
	case errors.Is(err, io.ErrClosedPipe):
		return err
	case first && errors.Is(err, io.EOF):
		return runtime.Errorf(errdefs.ErrInvalidArgument, "the archive is empty")
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader):
		return runtime.Errorf(errdefs.ErrInvalidArgument, "it is not an image archive: %v", err)
	}
	return err
}

// layout is what an OCI layout tells of its images.
type layout struct {
	arch        string
	dockerIndex bool
	documents   map[string][]byte
	held        int64
}

// wants reports whether an entry may be a document of the layout. What is not
// JSON is a layer; layers that are as small are held for nothing.
func (l *layout) wants(name string, size int64) bool {
	if size > maxDocument || l.held+size > maxDocuments {
		return false
	}
	if name != "index.json" && !strings.HasPrefix(name, "blobs/") {
		return false
	}
	l.held += size
	return true
}

// dockerManifest is an entry of manifest.json.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// index makes manifest.json, or nil if the archive needs none.
func (l *layout) index() ([]byte, error) {
	top, ok := l.documents["index.json"]
	if l.dockerIndex || !ok {
		return nil, nil
	}
	var index ocispec.Index
	if err := json.Unmarshal(top, &index); err != nil {
		return nil, runtime.Errorf(errdefs.ErrInvalidArgument, "index.json of the archive: %v", err)
	}
	var list []dockerManifest
	for _, d := range index.Manifests {
		m, err := l.manifest(d, 0)
		if err != nil {
			return nil, err
		}
		entry := dockerManifest{Config: blobPath(m.Config)}
		if tag := imageName(d.Annotations); tag != "" {
			entry.RepoTags = []string{tag}
		}
		for _, layer := range m.Layers {
			entry.Layers = append(entry.Layers, blobPath(layer))
		}
		list = append(list, entry)
	}
	if len(list) == 0 {
		return nil, runtime.Errorf(errdefs.ErrInvalidArgument, "the archive holds no image")
	}
	return json.Marshal(list)
}

// manifest finds the image for this engine that a descriptor leads to.
func (l *layout) manifest(d ocispec.Descriptor, depth int) (ocispec.Manifest, error) {
	var m struct {
		ocispec.Manifest
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	document, ok := l.documents[blobPath(d)]
	if !ok || depth > 4 {
		return m.Manifest, runtime.Errorf(errdefs.ErrInvalidArgument, "the archive does not hold %s, which its index names", d.Digest)
	}
	if err := json.Unmarshal(document, &m); err != nil {
		return m.Manifest, runtime.Errorf(errdefs.ErrInvalidArgument, "manifest %s of the archive: %v", d.Digest, err)
	}
	for _, child := range m.Manifests {
		if p := child.Platform; p == nil || p.OS == "linux" && p.Architecture == l.arch {
			return l.manifest(child, depth+1)
		}
	}
	if len(m.Manifests) > 0 {
		return m.Manifest, runtime.Errorf(errdefs.ErrInvalidArgument, "the archive holds no image for linux/%s", l.arch)
	}
	return m.Manifest, nil
}

func blobPath(d ocispec.Descriptor) string {
	return path.Join("blobs", string(d.Digest.Algorithm()), d.Digest.Encoded())
}

// imageName is the name that an index gives an image, or empty.
func imageName(annotations map[string]string) string {
	for _, key := range []string{"io.containerd.image.name", ocispec.AnnotationRefName} {
		name := annotations[key]
		// The second is often a tag alone.
		if name == "" || !strings.ContainsAny(name, ":/") {
			continue
		}
		if named, err := reference.ParseNormalizedNamed(name); err == nil {
			if _, digested := named.(reference.Digested); !digested {
				return reference.TagNameOnly(named).String()
			}
		}
	}
	return ""
}
