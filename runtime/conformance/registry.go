package conformance

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// imageRegistry is the part of a registry that a pull needs, in memory.
type imageRegistry struct {
	mu   sync.Mutex
	tags map[string]v1.Image // by "repository:tag" and "repository@digest"
}

func newRegistry() *imageRegistry { return &imageRegistry{tags: map[string]v1.Image{}} }

// add puts an image under a tag, and under its digest.
func (r *imageRegistry) add(repository, tag string, img v1.Image) error {
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tags[repository+":"+tag] = img
	r.tags[repository+"@"+digest.String()] = img
	return nil
}

// ServeHTTP implements the pull part of the distribution specification.
func (r *imageRegistry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	path := strings.TrimPrefix(q.URL.Path, "/v2/")
	if path == "" {
		return
	}
	var err error
	if repository, ref, ok := strings.Cut(path, "/manifests/"); ok {
		err = r.manifest(w, repository, ref)
	} else if repository, digest, ok := strings.Cut(path, "/blobs/"); ok {
		err = r.blob(w, q, repository, digest)
	} else {
		refuse(w, "UNSUPPORTED")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func refuse(w http.ResponseWriter, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"not here"}]}`, code)
}

func (r *imageRegistry) manifest(w http.ResponseWriter, repository, ref string) error {
	separator := ":"
	if strings.Contains(ref, ":") {
		separator = "@"
	}
	r.mu.Lock()
	img := r.tags[repository+separator+ref]
	r.mu.Unlock()
	if img == nil {
		refuse(w, "MANIFEST_UNKNOWN")
		return nil
	}
	raw, err := img.RawManifest()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	mediaType, err := img.MediaType()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", string(mediaType))
	w.Header().Set("Docker-Content-Digest", digest.String())
	w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
	_, err = w.Write(raw) // left out by the server for HEAD
	return err
}

func (r *imageRegistry) blob(w http.ResponseWriter, q *http.Request, repository, digest string) error {
	want, err := v1.NewHash(digest)
	if err != nil {
		refuse(w, "BLOB_UNKNOWN")
		return nil //nolint:nilerr // it is the client's mistake
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, img := range r.tags {
		if !strings.HasPrefix(name, repository+":") {
			continue
		}
		if config, err := img.ConfigName(); err == nil && config == want {
			raw, err := img.RawConfigFile()
			if err != nil {
				return err
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
			_, err = w.Write(raw)
			return err
		}
		layer, err := img.LayerByDigest(want)
		if err != nil {
			continue
		}
		size, err := layer.Size()
		if err != nil {
			return err
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		if q.Method == http.MethodHead {
			return nil
		}
		content, err := layer.Compressed()
		if err != nil {
			return err
		}
		defer func() { _ = content.Close() }()
		_, err = io.Copy(w, content)
		return err
	}
	refuse(w, "BLOB_UNKNOWN")
	return nil
}
