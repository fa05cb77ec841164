package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	buildkit "github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

func TestStartFailureHoldsBackTheDaemonsTextOnly(t *testing.T) {
	const failure = "OCI runtime exec failed: exec failed: no such file"
	for _, tc := range []struct {
		name   string
		writes []string
		passed string // before flush
	}{
		{"ordinary output passes at once", []string{"hello", " world"}, "hello world"},
		{"the daemon's text is held", []string{failure}, ""},
		{"also if it comes in pieces", []string{failure[:3], failure[3:30], failure[30:]}, ""},
		{"what only begins alike passes as soon as it differs", []string{"OCI run", "s well"}, "OCI runs well"},
		{"nothing is held for ever", []string{"failed to " + strings.Repeat("x", maxHeld)}, "failed to " + strings.Repeat("x", maxHeld)},
		{"output later in the stream is not looked at", []string{"a", failure}, "a" + failure},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			s := &startFailure{w: &out}
			for _, w := range tc.writes {
				if n, err := s.Write([]byte(w)); err != nil || n != len(w) {
					t.Fatal(n, err)
				}
			}
			if out.String() != tc.passed {
				t.Errorf("passed %.80q, want %.80q", out.String(), tc.passed)
			}
			// A process that printed such a text itself gets it through.
			if err := s.flush(); err != nil || out.String() != strings.Join(tc.writes, "") {
				t.Errorf("after flush: %.80q, %v", out.String(), err)
			}
		})
	}
}

func TestCountingReaderNumbersTheReadUnderWay(t *testing.T) {
	r, w := io.Pipe()
	in := &countingReader{r: r}
	if in.pending() != 0 {
		t.Error("a read is pending before anything is read")
	}
	for want := int64(1); want < 3; want++ {
		read := make(chan struct{})
		go func() { _, _ = in.Read(make([]byte, 1)); close(read) }()
		for in.pending() != want {
			time.Sleep(time.Millisecond)
		}
		_, _ = w.Write([]byte("x"))
		<-read
		if in.pending() != 0 {
			t.Error("a read is pending while the reader is busy elsewhere")
		}
	}
}

func TestCutOffCountsSilenceFromTheEndOfTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		in := &countingReader{r: r}
		var out bytes.Buffer
		read := make(chan struct{})
		go func() { _, _ = io.Copy(&out, in); close(read) }()
		end := time.Now().Add(time.Minute) // of silence
		ended := func(context.Context) bool { return time.Now().After(end) }
		go cutOff(t.Context(), ended, in, func() { _ = w.Close() })

		time.Sleep(time.Minute + 2*time.Second) // it has seen the end by now
		start := end.Add(2 * time.Second)
		_, _ = w.Write([]byte("last words"))
		<-read
		if out.String() != "last words" || !in.cut.Load() {
			t.Errorf("read %q, cut %t", out.String(), in.cut.Load())
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("cut %v after the last of the output", d)
		}
	})
}

func TestIndexArchive(t *testing.T) {
	archive := func(files ...string) []byte {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		for i := 0; i < len(files); i += 2 {
			_ = tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: files[i], Size: int64(len(files[i+1])), Mode: 0o644})
			_, _ = tw.Write([]byte(files[i+1]))
		}
		_ = tw.Close()
		return b.Bytes()
	}
	blob := func(content string) (name, descriptor string) {
		d := digest.FromString(content)
		return "blobs/sha256/" + d.Encoded(), fmt.Sprintf(`{"digest":%q,"size":%d`, d, len(content))
	}
	layer, layerD := blob("layer")
	config, configD := blob(`{"config":1}`)
	content := `{"config":` + configD + `},"layers":[` + layerD + `}]}`
	manifest, manifestD := blob(content)
	nested := `{"manifests":[` + manifestD + `,"platform":{"os":"linux","architecture":"arm64"}},` + manifestD + `,"platform":{"os":"linux","architecture":"amd64"}}]}`
	index, indexD := blob(nested)
	blobs := []string{layer, "layer", config, `{"config":1}`, manifest, content, index, nested}
	want := fmt.Sprintf(`[{"Config":%q,"RepoTags":%%s,"Layers":[%q]}]`, config, layer)

	for _, tc := range []struct {
		name, top, tags string
		fails           bool
	}{
		{"a manifest", `{"manifests":[` + manifestD + `}]}`, "null", false},
		{"an index of platforms", `{"manifests":[` + indexD + `}]}`, "null", false},
		{"a name", `{"manifests":[` + manifestD + `,"annotations":{"io.containerd.image.name":"example.com/a/b:c"}}]}`, `["example.com/a/b:c"]`, false},
		{"a short name", `{"manifests":[` + manifestD + `,"annotations":{"org.opencontainers.image.ref.name":"a:b"}}]}`, `["docker.io/library/a:b"]`, false},
		{"a tag alone is no name", `{"manifests":[` + manifestD + `,"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}`, "null", false},
		{"a manifest that is not there", `{"manifests":[{"digest":"sha256:` + strings.Repeat("0", 64) + `"}]}`, "", true},
		{"no manifest", `{"manifests":[]}`, "", true},
		{"no JSON", `x`, "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			err := indexArchive(&out, bytes.NewReader(archive(append([]string{"index.json", tc.top}, blobs...)...)), "amd64")
			if tc.fails {
				if !errdefs.IsInvalidArgument(err) {
					t.Errorf("got %v, want InvalidArgument", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got, wanted any
			tr := tar.NewReader(&out)
			for {
				h, err := tr.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if h.Name == "manifest.json" {
					_ = json.NewDecoder(tr).Decode(&got)
				}
			}
			_ = json.Unmarshal(fmt.Appendf(nil, want, tc.tags), &wanted)
			if fmt.Sprint(got) != fmt.Sprint(wanted) {
				t.Errorf("got %v, want %v", got, wanted)
			}
		})
	}

	t.Run("a docker archive passes as it is", func(t *testing.T) {
		source := archive("manifest.json", "[]", "index.json", "x")
		var out bytes.Buffer
		if err := indexArchive(&out, bytes.NewReader(source), "amd64"); err != nil || !bytes.Equal(out.Bytes(), source) {
			t.Errorf("%d bytes became %d: %v", len(source), out.Len(), err)
		}
	})
}

func TestPrinterExplainsTheFailedStep(t *testing.T) {
	var out bytes.Buffer
	p := &printer{w: &out, steps: map[digest.Digest]*step{}}
	now := time.Now()
	good, bad, victim := digest.FromString("1"), digest.FromString("2"), digest.FromString("3")
	p.print(&buildkit.SolveStatus{Vertexes: []*buildkit.Vertex{
		{Digest: good, Name: "[1/2] RUN good", Started: &now}, {Digest: bad, Name: "[2/2] RUN bad", Started: &now}, {Digest: victim, Name: "[other 1/1] RUN long", Started: &now},
	}})
	p.print(&buildkit.SolveStatus{Logs: []*buildkit.VertexLog{{Vertex: good, Data: []byte("fine\n")}, {Vertex: bad, Data: []byte("oh")}, {Vertex: bad, Data: []byte(" no\n")}}})
	p.print(&buildkit.SolveStatus{Vertexes: []*buildkit.Vertex{
		{Digest: bad, Name: "[2/2] RUN bad", Started: &now, Completed: &now, Error: "process did not complete successfully: exit code: 1"},
		{Digest: victim, Name: "[other 1/1] RUN long", Started: &now, Completed: &now, Error: "context canceled"},
	}})
	err := p.explain(errors.New("rpc error: code = Unknown desc = failed"))
	want := "step \"[2/2] RUN bad\" failed: process did not complete successfully: exit code: 1\noh no"
	if err.Error() != want || !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %q", err)
	}
	if got := out.String(); !strings.Contains(got, "fine\n") || !strings.Contains(got, "[2/2] RUN bad:\noh no\n") {
		t.Errorf("progress is %q", got)
	}
}

func TestClassicOutputIsFollowed(t *testing.T) {
	b := &classicBuild{progress: io.Discard, out: newOutput()}
	for _, line := range []string{
		"Step 1/2 : FROM x\n", " ---> 0123456789ab\n", "Step 2/2 : RUN y\n", " ---> Running in 123456789abc\n",
		"a word\n", "\x1b[91mred\n\x1b[0m", "Removing intermediate container 123456789abc\n", " ---> not an id\n",
	} {
		b.follow(line)
	}
	if b.step != "RUN y" || len(b.images) != 1 || len(b.containers) != 1 {
		t.Errorf("step %q, images %q, containers %q", b.step, b.images, b.containers)
	}
	if got := b.out.lastLines(10); got != "a word\nred\n ---> not an id" {
		t.Errorf("output is %q", got)
	}
}
